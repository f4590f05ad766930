// Sixteen floats in one AVX-512 register, stored as floats or in sixteen bits. Level: F + BW + DQ + VL + VBMI2 + VPOPCNTDQ + VNNI, with BMI2, FMA and POPCNT: Ice
// Lake, Zen 4 and later.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "core/half.h"
#include "core/rounding.h"

#define RS_ISA avx512

namespace recsparse::avx512 {

constexpr bool kVectors = true;  // sixteen lanes are loaded, stored and permuted at once

template <class T>
struct V16;

template <>
struct V16<float> {
  __m512 r;
  V16() = default;
  RS_INLINE_MEMBER explicit V16(__m512 x) : r(x) {}
  RS_INLINE_MEMBER explicit V16(float x) : r(_mm512_set1_ps(x)) {}
};
using F16 = V16<float>;
template <class S>
using Lanes = V16<ArithmeticType<S>>;

RS_INLINE F16 operator+(F16 a, F16 b) { return F16(_mm512_add_ps(a.r, b.r)); }
RS_INLINE F16 operator-(F16 a, F16 b) { return F16(_mm512_sub_ps(a.r, b.r)); }
RS_INLINE F16 operator*(F16 a, F16 b) { return F16(_mm512_mul_ps(a.r, b.r)); }
RS_INLINE F16 operator/(F16 a, F16 b) { return F16(_mm512_div_ps(a.r, b.r)); }
RS_INLINE F16 abs(F16 a) { return F16(_mm512_abs_ps(a.r)); }
RS_INLINE F16 max(F16 a, F16 b) { return F16(_mm512_max_ps(a.r, b.r)); }
RS_INLINE F16 min(F16 a, F16 b) { return F16(_mm512_min_ps(a.r, b.r)); }
RS_INLINE F16 fma(F16 a, F16 b, F16 c) { return F16(_mm512_fmadd_ps(a.r, b.r, c.r)); }
RS_INLINE uint32_t greater(F16 a, F16 b) { return _mm512_cmp_ps_mask(a.r, b.r, _CMP_GT_OQ); }

// Lanes of a where the mask is set, of b elsewhere.
RS_INLINE F16 select(uint32_t mask, F16 a, F16 b) {
  return F16(_mm512_mask_blend_ps(static_cast<__mmask16>(mask), b.r, a.r));
}

RS_INLINE F16 load(const float* p) { return F16(_mm512_loadu_ps(p)); }
RS_INLINE F16 load(const float* p, uint32_t lanes) {
  return F16(_mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes), p));
}
RS_INLINE void store(float* p, F16 a) { _mm512_storeu_ps(p, a.r); }
RS_INLINE void store(float* p, F16 a, uint32_t lanes) { _mm512_mask_storeu_ps(p, static_cast<__mmask16>(lanes), a.r); }
// Bypasses the caches; p is 64-byte aligned.
RS_INLINE void stream(float* p, F16 a) { _mm512_stream_ps(p, a.r); }
RS_INLINE void stream_fence() { _mm_sfence(); }

RS_INLINE __m512i lane_numbers() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

// Sixteen-bit storage: sixteen values are half a register in memory, and sixteen floats once they are loaded.
RS_INLINE F16 widen(Half, __m256i bits) { return F16(_mm512_cvtph_ps(bits)); }
RS_INLINE F16 widen(BFloat16, __m256i bits) {
  return F16(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
}
RS_INLINE __m256i narrow(Half, F16 a) { return _mm512_cvtps_ph(a.r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
RS_INLINE __m256i narrow(BFloat16, F16 a) {
  const __m512i bits = _mm512_castps_si512(a.r), high = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.r, a.r, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, _mm512_srli_epi32(up, 16), quiet));
}
template <class S>
RS_INLINE F16 load(const S* p) {
  return widen(S{}, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
template <class S>
RS_INLINE F16 load(const S* p, uint32_t lanes) {
  return widen(S{}, _mm256_maskz_loadu_epi16(static_cast<__mmask16>(lanes), p));
}
template <class S>
RS_INLINE void store(S* p, F16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(S{}, a));
}
template <class S>
RS_INLINE void store(S* p, F16 a, uint32_t lanes) {
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>(lanes), narrow(S{}, a));
}
template <class S>
RS_INLINE void stream(S* p, F16 a) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), narrow(S{}, a));
}

// How far to step back from p, in values, for an access to its first n values (n <= 16): so far that sixteen values end
// with the cache line, when the n lie in one, else not at all. A masked access of sixteen lanes that crosses into the next
// line fetches that line even when no lane of the mask is in it, and nobody prefetched it: on Zen 5 a cold lookup took
// 41 ns a row so, and takes 14 with the step. No branch: whether a row crosses is as good as random.
template <class S>
RS_INLINE uint32_t step_back(const S* p, int n) {
  constexpr uint32_t kLine = 64 / sizeof(S);
  const uint32_t offset = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(p) / sizeof(S)) & (kLine - 1);
  const uint32_t back = offset > kLine - 16 ? offset - (kLine - 16) : 0;
  const int32_t beyond =
      static_cast<int32_t>(offset) + n - static_cast<int32_t>(kLine) - 1;  // negative: they do not cross
  return back & static_cast<uint32_t>(beyond >> 31);
}

// The first n values at p, zero in the other lanes.
template <class S>
RS_INLINE F16 load_first(const S* p, int n) {
  const uint32_t back = step_back(p, n);
  const F16 line = load(p - back, ((1u << n) - 1) << back);
  return F16(
      _mm512_permutexvar_ps(_mm512_add_epi32(lane_numbers(), _mm512_set1_epi32(static_cast<int>(back))), line.r));
}

// The first n lanes of a to p.
template <class S>
RS_INLINE void store_first(S* p, F16 a, int n) {
  const uint32_t back = step_back(p, n);
  const __m512i lane = _mm512_sub_epi32(lane_numbers(), _mm512_set1_epi32(static_cast<int>(back)));  // modulo 16
  store(p - back, F16(_mm512_permutexvar_ps(lane, a.r)), ((1u << n) - 1) << back);
}

// Lane i of a rounded to an S stochastically, for the weight at `position` + i of a row; see core/half.h. The result is a
// float that `store` converts exactly.
RS_INLINE __m512i rounding_lanes(RoundingKey key, uint32_t position) {
  const __m512i first = _mm512_set1_epi32(static_cast<int>(key.bits + position * kRoundingStride));
  const __m512i stride = _mm512_set1_epi32(static_cast<int>(kRoundingStride));
  __m512i x = _mm512_add_epi32(first, _mm512_mullo_epi32(lane_numbers(), stride));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32(static_cast<int>(0x85EBCA6Bu)));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 13));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32(static_cast<int>(0xC2B2AE35u)));
  return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}
// `magnitude` of a finite number with the sign of a; a itself where it is none.
RS_INLINE F16 with_sign_of(F16 a, __m512i magnitude) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(kMagnitudeMask)), bits = _mm512_castps_si512(a.r);
  const __m512i out = _mm512_or_si512(_mm512_andnot_si512(mask, bits), magnitude);
  const __mmask16 finite = _mm512_cmplt_epu32_mask(_mm512_and_si512(bits, mask), _mm512_set1_epi32(kInfinityKey));
  return F16(_mm512_castsi512_ps(_mm512_mask_blend_epi32(finite, bits, out)));
}
RS_INLINE __m512i clamped_magnitude(F16 a, uint32_t largest) {
  const __m512i magnitude =
      _mm512_and_si512(_mm512_castps_si512(a.r), _mm512_set1_epi32(static_cast<int>(kMagnitudeMask)));
  return _mm512_min_epu32(magnitude, _mm512_set1_epi32(static_cast<int>(largest)));
}
RS_INLINE F16 round_stochastic(float, F16 a, RoundingKey, uint32_t) { return a; }
// The rare lanes, in full: too large, below the normal numbers, infinite or NaN.
[[gnu::noinline, maybe_unused]] static __m512i round_rare(BFloat16, F16 a, __m512i random) {
  const __m512i low = _mm512_set1_epi32(0xffff);
  const __m512i sum = _mm512_add_epi32(clamped_magnitude(a, kLargestBFloat16), _mm512_and_si512(random, low));
  return _mm512_castps_si512(with_sign_of(a, _mm512_andnot_si512(low, sum)).r);
}
[[gnu::noinline, maybe_unused]] static __m512i round_rare(Half, F16 a, __m512i random) {
  const __m512i magnitude = clamped_magnitude(a, kLargestHalf);
  const __m512i low = _mm512_set1_epi32(0x1fff), low_part = _mm512_set1_epi32(0x1fffff);
  const __m512i normal = _mm512_andnot_si512(low, _mm512_add_epi32(magnitude, _mm512_and_si512(random, low)));
  const __m512i parts = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_castsi512_ps(magnitude), _mm512_set1_ps(0x1p45f)));
  const __m512i units = _mm512_srli_epi32(_mm512_add_epi32(parts, _mm512_and_si512(random, low_part)), 21);
  const __m512 small = _mm512_mul_ps(_mm512_cvtepi32_ps(units), _mm512_set1_ps(0x1p-24f));
  const __mmask16 is_small = _mm512_cmplt_epu32_mask(magnitude, _mm512_set1_epi32(kSmallestNormalHalf));
  const __m512i rounded = _mm512_mask_blend_epi32(is_small, normal, _mm512_castps_si512(small));
  return _mm512_castps_si512(with_sign_of(a, rounded).r);
}

// Magnitudes in [first, end) keep their sign and exponent: their bits plus the noise, truncated.
template <class S>
RS_INLINE F16 round_lanes(F16 a, __m512i random, uint32_t noise, uint32_t first, uint32_t end) {
  const __m512i bits = _mm512_castps_si512(a.r), low = _mm512_set1_epi32(static_cast<int>(noise));
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(kMagnitudeMask));
  const __m512i above = _mm512_sub_epi32(_mm512_and_si512(bits, mask), _mm512_set1_epi32(static_cast<int>(first)));
  const __mmask16 outside = _mm512_cmpge_epu32_mask(above, _mm512_set1_epi32(static_cast<int>(end - first)));
  const __mmask16 rare = _mm512_mask_test_epi32_mask(outside, bits, mask);  // 0 is not: it stays 0 either way
  if (__builtin_expect(rare != 0, 0)) return F16(_mm512_castsi512_ps(round_rare(S{}, a, random)));
  return F16(_mm512_castsi512_ps(_mm512_andnot_si512(low, _mm512_add_epi32(bits, _mm512_and_si512(random, low)))));
}
RS_INLINE F16 round_stochastic(BFloat16, F16 a, RoundingKey key, uint32_t position) {
  return round_lanes<BFloat16>(a, rounding_lanes(key, position), 0xffff, 0, kLargestBFloat16);
}
RS_INLINE F16 round_stochastic(Half, F16 a, RoundingKey key, uint32_t position) {
  return round_lanes<Half>(a, rounding_lanes(key, position), 0x1fff, kSmallestNormalHalf, kLargestHalf);
}

// Lane i + n of a in lane i; the last n lanes are unspecified.
RS_INLINE F16 shift_down(F16 a, int n) {
  return F16(_mm512_permutexvar_ps(_mm512_add_epi32(lane_numbers(), _mm512_set1_epi32(n)), a.r));
}

// Sixteen pairs in memory order, and their first and second elements.
struct Pairs {
  F16 a, b;
};
RS_INLINE Pairs split_pairs(Pairs x) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  return Pairs{F16(_mm512_permutex2var_ps(x.a.r, even, x.b.r)), F16(_mm512_permutex2var_ps(x.a.r, odd, x.b.r))};
}
RS_INLINE Pairs join_pairs(Pairs x) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  return Pairs{F16(_mm512_permutex2var_ps(x.a.r, low, x.b.r)), F16(_mm512_permutex2var_ps(x.a.r, high, x.b.r))};
}

// Ascending values of a go to the lanes of `mask` in ascending order, zero elsewhere.
RS_INLINE F16 expand(F16 a, uint32_t mask) { return F16(_mm512_maskz_expand_ps(static_cast<__mmask16>(mask), a.r)); }
// The same from the consecutive values at p; reads popcount(mask) of them. In a register first: expanding straight from
// memory takes six cycles on Zen 5.
template <class S>
RS_INLINE F16 expand(const S* p, uint32_t mask) {
  return expand(load(p, (1u << __builtin_popcount(mask)) - 1), mask);
}
// The same from lane `before` of a on, whose lane 15 is zero.
RS_INLINE F16 expand_from(F16 a, int before, uint32_t mask) { return expand(shift_down(a, before), mask); }
// The lanes of `mask` in ascending order. In a register first: compressing straight to memory is microcoded on Zen 4.
RS_INLINE F16 compress(F16 a, uint32_t mask) {
  return F16(_mm512_maskz_compress_ps(static_cast<__mmask16>(mask), a.r));
}

// Sum of the lanes by halving: lane i + lane i+8, then +4, +2, +1.
RS_INLINE float reduce_add(F16 a) {
  const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a.r), _mm512_extractf32x8_ps(a.r, 1));
  const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}

// Round to nearest integer, and 2^n for integral n in [-126, 127].
RS_INLINE F16 round(F16 a) { return F16(_mm512_roundscale_ps(a.r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
RS_INLINE F16 exp2_integer(F16 n) {
  const __m512i bits = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.r), _mm512_set1_epi32(127)), 23);
  return F16(_mm512_castsi512_ps(bits));
}

// m / (sqrt(v) + eps) by reciprocal estimates and one Newton step each: keeps the update off the divider, which is not
// pipelined. Tested against exact arithmetic through SparseAdam, to 1e-6 over 200 steps.
RS_INLINE F16 divide_by_root(F16 m, F16 v, F16 eps) {
  const __m512 safe = _mm512_max_ps(v.r, _mm512_set1_ps(1e-36f));
  const __m512 y = _mm512_rsqrt14_ps(safe);
  const __m512 root = _mm512_mul_ps(safe, y);
  const __m512 error = _mm512_fnmadd_ps(root, y, _mm512_set1_ps(1.0f));  // 1 - v y^2
  const __m512 refined = _mm512_fmadd_ps(_mm512_mul_ps(root, _mm512_set1_ps(0.5f)), error, root);
  const __m512 denominator = _mm512_add_ps(refined, eps.r);
  const __m512 r = _mm512_rcp14_ps(denominator);
  const __m512 quotient = _mm512_mul_ps(m.r, r);
  const __m512 residual = _mm512_fnmadd_ps(quotient, denominator, m.r);
  return F16(_mm512_fmadd_ps(residual, r, quotient));
}

// Ranks inside a block, see core/rows.h.
struct Rank {
  RS_INLINE_MEMBER static uint64_t mask_bits(const uint64_t* block, int words, int lines) {
    const uint32_t lanes = ((1u << words) - 1) << 2;  // the first two 32-bit lanes are the base
    __m512i bits = _mm512_popcnt_epi32(_mm512_maskz_loadu_epi32(static_cast<__mmask16>(lanes), block));
    if (lines == 2) {
      const __m512i more = _mm512_maskz_loadu_epi32(static_cast<__mmask16>(lanes >> 16), block + 8);
      bits = _mm512_add_epi32(bits, _mm512_popcnt_epi32(more));
    }
    return static_cast<uint32_t>(_mm512_reduce_add_epi32(bits));
  }
  RS_INLINE_MEMBER static uint64_t lengths(const uint64_t* block, int n, bool wide) {
    const uint64_t lanes = ((1ull << (wide ? 2 * n : n)) - 1) << 8;  // the first eight bytes are the base
    const __m512i kept = _mm512_maskz_loadu_epi8(lanes, block);
    if (!wide) return static_cast<uint64_t>(_mm512_reduce_add_epi64(_mm512_sad_epu8(kept, _mm512_setzero_si512())));
    return static_cast<uint32_t>(_mm512_reduce_add_epi32(_mm512_madd_epi16(kept, _mm512_set1_epi16(1))));
  }
};

// Bits of `source` at the set positions of `selector`, packed: over the whole width of a row.
template <int N>
RS_INLINE uint32_t pack_bits(const uint64_t* source, const uint64_t* selector) {
  uint64_t out = 0;
  int shift = 0;
  for (int i = 0; i < N; ++i) {
    out |= _pext_u64(source[i], selector[i]) << shift;
    shift += __builtin_popcountll(selector[i]);
  }
  return static_cast<uint32_t>(out);
}

// Two rows of at most sixteen kept values each, seen through each other's mask without unpacking either.
struct Overlap {
  F16 b_at_a;  // in a's packed order: b's value in each of a's columns, 0 where b has none
  F16 a_at_b;
};
template <int N>
RS_INLINE Overlap overlap(F16 a, const uint64_t* mask_a, F16 b, const uint64_t* mask_b) {
  const __mmask16 in_a = static_cast<__mmask16>(pack_bits<N>(mask_b, mask_a));
  const __mmask16 in_b = static_cast<__mmask16>(pack_bits<N>(mask_a, mask_b));
  Overlap out;
  out.b_at_a = F16(_mm512_maskz_expand_ps(in_a, _mm512_maskz_compress_ps(in_b, b.r)));
  out.a_at_b = F16(_mm512_maskz_expand_ps(in_b, _mm512_maskz_compress_ps(in_a, a.r)));
  return out;
}

}  // namespace recsparse::avx512
