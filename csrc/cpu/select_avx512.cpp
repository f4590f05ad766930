#include <immintrin.h>

#include "core/macros.h"
#include "cpu/select.h"

namespace recsparse::avx512 {

// The hardware prefetcher stops at every 4 KB page; asking one page ahead is worth a third of the time.
constexpr int kAheadBytes = 4096;

// Sixteen keys; lanes outside `lanes` count nowhere.
RS_INLINE int64_t bracket_vector(const uint32_t* bits, uint32_t lanes, __m512i mask, __m512i lo, __m512i hi,
                                 __m512i* max_key, BracketCounts* counts, uint32_t* inside) {
  const __m512i key = _mm512_and_si512(_mm512_maskz_loadu_epi32(static_cast<__mmask16>(lanes), bits), mask);
  *max_key = _mm512_max_epu32(*max_key, key);
  const uint32_t above_hi = _mm512_cmpgt_epu32_mask(key, hi) & lanes;
  const uint32_t within = _mm512_cmpgt_epu32_mask(key, lo) & lanes & ~above_hi;
  counts->above += __builtin_popcount(above_hi);
  counts->equal_lo += __builtin_popcount(_mm512_cmpeq_epu32_mask(key, lo) & lanes);
  // In a register first: compressing straight to memory is microcoded on Zen 4.
  _mm512_storeu_si512(inside, _mm512_maskz_compress_epi32(static_cast<__mmask16>(within), key));
  return __builtin_popcount(within);
}

static int64_t bracket(const uint32_t* bits, int64_t size, uint32_t mask, uint32_t lo, uint32_t hi,
                       BracketCounts* counts, uint32_t* inside) {
  const __m512i masks = _mm512_set1_epi32(static_cast<int>(mask)), los = _mm512_set1_epi32(static_cast<int>(lo)),
                his = _mm512_set1_epi32(static_cast<int>(hi));
  __m512i max_key = _mm512_set1_epi32(static_cast<int>(counts->max_key));
  BracketCounts sum = *counts;
  int64_t found = 0, i = 0;
  for (; i + 16 <= size; i += 16) {
    _mm_prefetch(reinterpret_cast<const char*>(bits + i) + kAheadBytes, _MM_HINT_T0);
    found += bracket_vector(bits + i, 0xffff, masks, los, his, &max_key, &sum, inside + found);
  }
  if (i < size) {
    found += bracket_vector(bits + i, (1u << (size - i)) - 1, masks, los, his, &max_key, &sum, inside + found);
  }
  alignas(64) uint32_t maxima[16];
  _mm512_store_si512(maxima, max_key);
  for (const uint32_t key : maxima) sum.max_key = key > sum.max_key ? key : sum.max_key;
  *counts = sum;
  return found;
}

extern const SelectKernel select_kernel = {bracket};

}  // namespace recsparse::avx512
