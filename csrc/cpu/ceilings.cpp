#include "ceilings.h"

#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace recsparse::cpu {

void ceiling_copy(void* dst, const void* src, int64_t nbytes) {
#if defined(__SSE2__)
  auto* out = static_cast<__m128i*>(dst);
  const auto* in = static_cast<const __m128i*>(src);
  for (int64_t i = 0; i < nbytes / 16; ++i) _mm_stream_si128(out + i, _mm_load_si128(in + i));
  _mm_sfence();
#else
  std::memcpy(dst, src, static_cast<size_t>(nbytes));
#endif
}

uint64_t ceiling_read(const void* src, int64_t nbytes) {
  const auto* in = static_cast<const uint64_t*>(src);
  uint64_t sum[8] = {};
  const int64_t words = nbytes / 8;
  int64_t i = 0;
  for (; i + 8 <= words; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] += in[i + j];
  }
  for (; i < words; ++i) sum[0] += in[i];
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

uint64_t ceiling_gather(const uint8_t* table, const int64_t* ids, int64_t n, int64_t line_bytes, int64_t ahead_ids) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint8_t* ahead = table + ids[i + ahead_ids < n ? i + ahead_ids : n - 1] * line_bytes;
    const uint8_t* row = table + ids[i] * line_bytes;
    for (int64_t byte = 0; byte < line_bytes; byte += 64) {
      __builtin_prefetch(ahead + byte);
      uint64_t word;
      std::memcpy(&word, row + byte, sizeof word);
      sum += word;
    }
  }
  return sum;
}

}  // namespace recsparse::cpu
