#include "cpu/isa_avx2.h"
#include "cpu/select.h"

namespace recsparse::avx2 {

// The hardware prefetcher stops at every 4 KB page; asking one page ahead is worth a third of the time.
constexpr int kAheadBytes = 4096;

// Bracket and running maximum; keys are compared as signed numbers, which `flip` makes of unsigned ones.
struct Bounds {
  __m256i mask, lo, flipped_lo, flipped_hi, max_key;
};

RS_INLINE uint32_t lane_bits(__m256i lanes) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
}

// Eight keys; lanes outside `lanes` count nowhere and are zero.
RS_INLINE int bracket_vector(__m256i bits, uint32_t lanes, Bounds& bounds, BracketCounts* counts, uint32_t* inside) {
  const __m256i flip = _mm256_set1_epi32(INT32_MIN);
  const __m256i key = _mm256_and_si256(bits, bounds.mask), flipped = _mm256_xor_si256(key, flip);
  bounds.max_key = _mm256_max_epu32(bounds.max_key, key);
  const uint32_t above_hi = lane_bits(_mm256_cmpgt_epi32(flipped, bounds.flipped_hi)) & lanes;
  const uint32_t within = lane_bits(_mm256_cmpgt_epi32(flipped, bounds.flipped_lo)) & lanes & ~above_hi;
  counts->above += __builtin_popcount(above_hi);
  counts->equal_lo += __builtin_popcount(lane_bits(_mm256_cmpeq_epi32(key, bounds.lo)) & lanes);
  const __m256 packed = permute8(_mm256_castsi256_ps(key), _pext_u32(0x76543210u, nibbles8(within)));
  _mm256_storeu_ps(reinterpret_cast<float*>(inside), packed);
  return __builtin_popcount(within);
}

static int64_t bracket(const uint32_t* bits, int64_t size, uint32_t mask, uint32_t lo, uint32_t hi,
                       BracketCounts* counts, uint32_t* inside) {
  const auto all = [](uint32_t key) { return _mm256_set1_epi32(static_cast<int>(key)); };
  Bounds bounds{all(mask), all(lo), all(lo ^ 0x80000000u), all(hi ^ 0x80000000u), all(counts->max_key)};
  BracketCounts sum = *counts;
  int64_t found = 0, i = 0;
  for (; i + 8 <= size; i += 8) {
    if (i % 16 == 0) _mm_prefetch(reinterpret_cast<const char*>(bits + i) + kAheadBytes, _MM_HINT_T0);
    const __m256i keys = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits + i));
    found += bracket_vector(keys, 0xff, bounds, &sum, inside + found);
  }
  if (i < size) {
    const int left = static_cast<int>(size - i);
    const __m256i keys = _mm256_maskload_epi32(reinterpret_cast<const int*>(bits + i), lane_range(0, left));
    found += bracket_vector(keys, (1u << left) - 1, bounds, &sum, inside + found);
  }
  alignas(32) uint32_t maxima[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(maxima), bounds.max_key);
  for (const uint32_t key : maxima) sum.max_key = key > sum.max_key ? key : sum.max_key;
  *counts = sum;
  return found;
}

extern const SelectKernel select_kernel = {bracket};

}  // namespace recsparse::avx2
