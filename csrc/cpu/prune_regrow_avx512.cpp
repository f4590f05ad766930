#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "core/float_order.h"
#include "cpu/prune_regrow.h"

#define RS_ISA avx512

namespace recsparse::avx512 {

RS_INLINE uint64_t deposit_bits(uint64_t bits, uint64_t mask) { return _pdep_u64(bits, mask); }
RS_INLINE uint64_t extract_bits(uint64_t bits, uint64_t mask) { return _pext_u64(bits, mask); }

// Lanes of a vector of `width` at position i of n.
RS_INLINE uint64_t lanes_at(int64_t i, int64_t n, int width) {
  const int64_t left = n - i;
  return left >= width ? ~0ull >> (64 - width) : (1ull << left) - 1;
}

RS_INLINE __mmask16 bits16(const uint64_t* stream, int64_t i) {
  uint16_t bits;
  std::memcpy(&bits, reinterpret_cast<const char*>(stream) + (i >> 3), 2);
  return bits;
}

static void count_keys(const uint32_t* bits, int64_t size, uint32_t mask, uint32_t threshold, int64_t* above,
                       int64_t* equal) {
  const __m512i masks = _mm512_set1_epi32(static_cast<int>(mask)), at = _mm512_set1_epi32(static_cast<int>(threshold));
  int64_t sum_above = 0, sum_equal = 0;
  for (int64_t i = 0; i < size; i += 16) {
    const __mmask16 lanes = static_cast<__mmask16>(lanes_at(i, size, 16));
    const __m512i key = _mm512_and_si512(_mm512_maskz_loadu_epi32(lanes, bits + i), masks);
    sum_above += __builtin_popcount(_mm512_mask_cmpgt_epu32_mask(lanes, key, at));
    sum_equal += __builtin_popcount(_mm512_mask_cmpeq_epu32_mask(lanes, key, at));
  }
  *above = sum_above;
  *equal = sum_equal;
}

static void keep_bits(const float* values, int64_t n, Choice keep, uint64_t* stream) {
  const __m512i magnitude = _mm512_set1_epi32(static_cast<int>(kMagnitudeMask)),
                at = _mm512_set1_epi32(static_cast<int>(keep.threshold));
  int64_t ties = keep.ties;
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = static_cast<__mmask16>(lanes_at(i, n, 16));
    const __m512i key = _mm512_and_si512(_mm512_maskz_loadu_epi32(lanes, values + i), magnitude);
    uint16_t bits = _mm512_mask_cmpgt_epu32_mask(lanes, key, at);
    const uint32_t equal = _mm512_mask_cmpeq_epu32_mask(lanes, key, at);
    if (equal) {
      const int count = __builtin_popcount(equal);
      bits |= static_cast<uint16_t>(ties >= count ? equal : _pdep_u32((1u << ties) - 1, equal));
      ties -= ties < count ? ties : count;
    }
    std::memcpy(reinterpret_cast<char*>(stream) + (i >> 3), &bits, 2);
  }
}

// The elements of src [n] whose bit is set; dst has room for a whole vector more.
RS_INLINE void compress(float* dst, const float* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = static_cast<__mmask16>(lanes_at(i, n, 16));
    const __mmask16 bits = static_cast<__mmask16>(bits16(stream, i) & lanes);
    _mm512_storeu_ps(dst, _mm512_maskz_compress_ps(bits, _mm512_maskz_loadu_ps(lanes, src + i)));
    dst += __builtin_popcount(bits);
  }
}

RS_INLINE void compress(uint8_t* dst, const uint8_t* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += 64) {
    const uint64_t lanes = lanes_at(i, n, 64), bits = stream[i >> 6] & lanes;
    _mm512_storeu_si512(dst, _mm512_maskz_compress_epi8(bits, _mm512_maskz_loadu_epi8(lanes, src + i)));
    dst += __builtin_popcountll(bits);
  }
}

// dst [n]: consecutive elements of src where the bit is set, zero elsewhere. Reads up to a vector past the last of src.
RS_INLINE void expand(float* dst, const float* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = static_cast<__mmask16>(lanes_at(i, n, 16));
    const __mmask16 bits = static_cast<__mmask16>(bits16(stream, i) & lanes);
    _mm512_mask_storeu_ps(dst + i, lanes, _mm512_maskz_expand_ps(bits, _mm512_loadu_ps(src)));
    src += __builtin_popcount(bits);
  }
}

RS_INLINE void expand(uint8_t* dst, const uint8_t* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += 64) {
    const uint64_t lanes = lanes_at(i, n, 64), bits = stream[i >> 6] & lanes;
    _mm512_mask_storeu_epi8(dst + i, lanes, _mm512_maskz_expand_epi8(bits, _mm512_loadu_si512(src)));
    src += __builtin_popcountll(bits);
  }
}

}  // namespace recsparse::avx512

#include "cpu/prune_regrow_kernel.h"

namespace recsparse::avx512 {

extern const PruneRegrowKernel prune_regrow_kernel = {count_keys, read_slab, write_slab};

}  // namespace recsparse::avx512
