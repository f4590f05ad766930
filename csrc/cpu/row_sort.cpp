#include "cpu/row_sort.h"

#include <cstring>
#include <utility>

namespace recsparse {

constexpr int kMaxDigitBits = 11;  // 2,048 counters of 4 bytes stay in the first-level cache

uint64_t* radix_sort(uint64_t* keys, uint64_t* scratch, int64_t count, int low, int bits) {
  if (bits <= 0) return keys;
  const int digits = (bits + kMaxDigitBits - 1) / kMaxDigitBits;
  const int width = (bits + digits - 1) / digits;
  const uint64_t digit_mask = (1ull << width) - 1;
  uint32_t counts[6][1 << kMaxDigitBits];  // 64 bits are six digits at most; count < 2^32 is checked by the caller
  std::memset(counts, 0, sizeof(counts[0]) * digits);
  for (int64_t i = 0; i < count; ++i) {
    uint64_t key = keys[i] >> low;
    for (int d = 0; d < digits; ++d, key >>= width) ++counts[d][key & digit_mask];
  }
  for (int d = 0; d < digits; ++d) {
    uint32_t sum = 0;
    for (uint64_t bucket = 0; bucket <= digit_mask; ++bucket) {
      const uint32_t n = counts[d][bucket];
      counts[d][bucket] = sum;
      sum += n;
    }
    const int shift = low + d * width;
    for (int64_t i = 0; i < count; ++i) scratch[counts[d][keys[i] >> shift & digit_mask]++] = keys[i];
    std::swap(keys, scratch);
  }
  return keys;
}

}  // namespace recsparse
