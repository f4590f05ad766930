#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "core/half.h"
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

static void count_keys(const float* values, int64_t size, uint32_t threshold, int64_t* above, int64_t* equal) {
  const __m512i masks = _mm512_set1_epi32(kMagnitudeMask), at = _mm512_set1_epi32(static_cast<int>(threshold));
  int64_t sum_above = 0, sum_equal = 0;
  for (int64_t i = 0; i < size; i += 16) {
    const __mmask16 lanes = static_cast<__mmask16>(lanes_at(i, size, 16));
    const __m512i key = _mm512_and_si512(_mm512_maskz_loadu_epi32(lanes, values + i), masks);
    sum_above += __builtin_popcount(_mm512_mask_cmpgt_epu32_mask(lanes, key, at));
    sum_equal += __builtin_popcount(_mm512_mask_cmpeq_epu32_mask(lanes, key, at));
  }
  *above = sum_above;
  *equal = sum_equal;
}

static void count_keys(const uint16_t* values, int64_t size, uint32_t threshold, int64_t* above, int64_t* equal) {
  const __m512i masks = _mm512_set1_epi16(kMagnitudeMask16), at = _mm512_set1_epi16(static_cast<short>(threshold));
  int64_t sum_above = 0, sum_equal = 0;
  for (int64_t i = 0; i < size; i += 32) {
    const __mmask32 lanes = static_cast<__mmask32>(lanes_at(i, size, 32));
    const __m512i key = _mm512_and_si512(_mm512_maskz_loadu_epi16(lanes, values + i), masks);
    sum_above += __builtin_popcount(_mm512_mask_cmpgt_epu16_mask(lanes, key, at));
    sum_equal += __builtin_popcount(_mm512_mask_cmpeq_epu16_mask(lanes, key, at));
  }
  *above = sum_above;
  *equal = sum_equal;
}

// Adds the first `*ties` of the lanes `equal` to those that are above the threshold, and takes them off.
RS_INLINE uint32_t add_ties(uint32_t above, uint32_t equal, int64_t* ties) {
  if (!equal) return above;
  const int count = __builtin_popcount(equal);
  above |= *ties >= count ? equal : _pdep_u32((1u << *ties) - 1, equal);
  *ties -= *ties < count ? *ties : count;
  return above;
}

static void keep_bits(const float* values, int64_t n, Choice keep, uint64_t* stream) {
  const __m512i masks = _mm512_set1_epi32(kMagnitudeMask), at = _mm512_set1_epi32(static_cast<int>(keep.threshold));
  int64_t ties = keep.ties;
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = static_cast<__mmask16>(lanes_at(i, n, 16));
    const __m512i key = _mm512_and_si512(_mm512_maskz_loadu_epi32(lanes, values + i), masks);
    const uint16_t bits = static_cast<uint16_t>(
        add_ties(_mm512_mask_cmpgt_epu32_mask(lanes, key, at), _mm512_mask_cmpeq_epu32_mask(lanes, key, at), &ties));
    std::memcpy(reinterpret_cast<char*>(stream) + (i >> 3), &bits, 2);
  }
}

static void keep_bits(const uint16_t* values, int64_t n, Choice keep, uint64_t* stream) {
  const __m512i masks = _mm512_set1_epi16(kMagnitudeMask16), at = _mm512_set1_epi16(static_cast<short>(keep.threshold));
  int64_t ties = keep.ties;
  for (int64_t i = 0; i < n; i += 32) {
    const __mmask32 lanes = static_cast<__mmask32>(lanes_at(i, n, 32));
    const __m512i key = _mm512_and_si512(_mm512_maskz_loadu_epi16(lanes, values + i), masks);
    const uint32_t bits =
        add_ties(_mm512_mask_cmpgt_epu16_mask(lanes, key, at), _mm512_mask_cmpeq_epu16_mask(lanes, key, at), &ties);
    std::memcpy(reinterpret_cast<char*>(stream) + (i >> 3), &bits, 4);
  }
}

RS_INLINE __mmask32 bits32(const uint64_t* stream, int64_t i) {
  uint32_t bits;
  std::memcpy(&bits, reinterpret_cast<const char*>(stream) + (i >> 3), 4);
  return bits;
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

RS_INLINE __mmask8 bits8(const uint64_t* stream, int64_t i) {
  return static_cast<__mmask8>(reinterpret_cast<const uint8_t*>(stream)[i >> 3]);
}
RS_INLINE void compress(StatePair* dst, const StatePair* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += 8) {
    const __mmask8 lanes = static_cast<__mmask8>(lanes_at(i, n, 8));
    const __mmask8 bits = static_cast<__mmask8>(bits8(stream, i) & lanes);
    _mm512_storeu_pd(dst, _mm512_maskz_compress_pd(bits, _mm512_maskz_loadu_pd(lanes, src + i)));
    dst += __builtin_popcount(bits);
  }
}

RS_INLINE void compress(uint16_t* dst, const uint16_t* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += 32) {
    const __mmask32 lanes = static_cast<__mmask32>(lanes_at(i, n, 32)), bits = bits32(stream, i) & lanes;
    _mm512_storeu_si512(dst, _mm512_maskz_compress_epi16(bits, _mm512_maskz_loadu_epi16(lanes, src + i)));
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

RS_INLINE void expand(StatePair* dst, const StatePair* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += 8) {
    const __mmask8 lanes = static_cast<__mmask8>(lanes_at(i, n, 8));
    const __mmask8 bits = static_cast<__mmask8>(bits8(stream, i) & lanes);
    _mm512_mask_storeu_pd(dst + i, lanes, _mm512_maskz_expand_pd(bits, _mm512_loadu_pd(src)));
    src += __builtin_popcount(bits);
  }
}

RS_INLINE void expand(uint16_t* dst, const uint16_t* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += 32) {
    const __mmask32 lanes = static_cast<__mmask32>(lanes_at(i, n, 32)), bits = bits32(stream, i) & lanes;
    _mm512_mask_storeu_epi16(dst + i, lanes, _mm512_maskz_expand_epi16(bits, _mm512_loadu_si512(src)));
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

extern const PruneRegrowKernel prune_regrow_kernels[2] = {
    {count_values<float>, read_slab<float>, write_slab<float>},
    {count_values<uint16_t>, read_slab<uint16_t>, write_slab<uint16_t>},
};

}  // namespace recsparse::avx512
