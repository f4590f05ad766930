// Sixteen floats in two AVX2 registers, stored as floats or in sixteen bits. Level: AVX2 + FMA + BMI2 + F16C + POPCNT: Haswell, Zen and later (Zen 1 and 2 run
// pdep and pext in microcode, so they gain less).
//
// AVX2 has no expand, no compress and no permutation across two registers. All three are one `permute16` here, whose
// selector is sixteen 4-bit lane numbers in a 64-bit word: pext and pdep on that word do the rest. Masked stores are slow
// on AMD (vmaskmovps writes take about twelve cycles), so a partial store is two overlapping whole ones instead.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "core/half.h"
#include "core/rounding.h"

#define RS_ISA avx2

namespace recsparse::avx2 {

constexpr bool kVectors = true;  // sixteen lanes are loaded, stored and permuted at once

template <class T>
struct V16;

template <>
struct V16<float> {
  __m256 lo, hi;
  V16() = default;
  RS_INLINE_MEMBER V16(__m256 a, __m256 b) : lo(a), hi(b) {}
  RS_INLINE_MEMBER explicit V16(float x) : lo(_mm256_set1_ps(x)), hi(lo) {}
};
using F16 = V16<float>;
template <class S>
using Lanes = V16<ArithmeticType<S>>;

RS_INLINE F16 operator+(F16 a, F16 b) { return F16(_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)); }
RS_INLINE F16 operator-(F16 a, F16 b) { return F16(_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)); }
RS_INLINE F16 operator*(F16 a, F16 b) { return F16(_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)); }
RS_INLINE F16 operator/(F16 a, F16 b) { return F16(_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)); }
RS_INLINE F16 abs(F16 a) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return F16(_mm256_and_ps(a.lo, magnitude), _mm256_and_ps(a.hi, magnitude));
}
RS_INLINE F16 max(F16 a, F16 b) { return F16(_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)); }
RS_INLINE F16 min(F16 a, F16 b) { return F16(_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)); }
RS_INLINE F16 fma(F16 a, F16 b, F16 c) {
  return F16(_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi));
}
RS_INLINE uint32_t greater(F16 a, F16 b) {
  const int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ));
  const int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ));
  return static_cast<uint32_t>(lo | hi << 8);
}

RS_INLINE __m256i lane_numbers() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }

// All ones in the lanes of the low eight bits of `mask`.
RS_INLINE __m256i lanes8(uint32_t mask) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bit), bit);
}
// All ones in lanes [from, to).
RS_INLINE __m256i lane_range(int from, int to) {
  const __m256i lane = lane_numbers();
  return _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(from), lane),
                             _mm256_cmpgt_epi32(_mm256_set1_epi32(to), lane));
}
RS_INLINE F16 keep_lanes(F16 a, uint32_t mask) {
  return F16(_mm256_and_ps(a.lo, _mm256_castsi256_ps(lanes8(mask))),
             _mm256_and_ps(a.hi, _mm256_castsi256_ps(lanes8(mask >> 8))));
}

// Lanes of a where the mask is set, of b elsewhere.
RS_INLINE F16 select(uint32_t mask, F16 a, F16 b) {
  return F16(_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(lanes8(mask))),
             _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(lanes8(mask >> 8))));
}

// ---- permutations ------------------------------------------------------------------------------------------------

constexpr uint64_t kLaneNibbles = 0xfedcba9876543210ull;

// Sixteen (eight) bits, each spread over four.
RS_INLINE uint64_t nibbles16(uint32_t mask) { return _pdep_u64(mask, 0x1111111111111111ull) * 15; }
RS_INLINE uint32_t nibbles8(uint32_t mask) { return _pdep_u32(mask, 0x11111111u) * 15; }

// Nibble i in lane i, with the higher nibbles above it: the permutation looks at the low three bits of a lane.
RS_INLINE __m256i spread8(uint32_t nibbles) {
  return _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(nibbles)),
                           _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
}
RS_INLINE __m256 permute8(__m256 a, uint32_t nibbles) { return _mm256_permutevar8x32_ps(a, spread8(nibbles)); }

// Lane i of the result is lane `index[i] & 15` of a.
RS_INLINE __m256 pick8(F16 a, __m256i index) {
  const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));  // the sign says which half
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(a.lo, index), _mm256_permutevar8x32_ps(a.hi, index), upper);
}
RS_INLINE F16 permute16(F16 a, uint64_t nibbles) {
  return F16(pick8(a, spread8(static_cast<uint32_t>(nibbles))),
             pick8(a, spread8(static_cast<uint32_t>(nibbles >> 32))));
}

// Ascending values of a go to the lanes of `mask` in ascending order, zero elsewhere.
RS_INLINE F16 expand(F16 a, uint32_t mask) {
  return keep_lanes(permute16(a, _pdep_u64(kLaneNibbles, nibbles16(mask))), mask);
}
// The same from lane `before` of a on, whose lane 15 is zero: lanes outside of the mask ask for that one.
RS_INLINE F16 expand_from(F16 a, int before, uint32_t mask) {
  const uint64_t nibbles = nibbles16(mask);
  return permute16(a, _pdep_u64(kLaneNibbles >> (4 * before), nibbles) | ~nibbles);
}
// The lanes of `mask` in ascending order, zero in the rest.
RS_INLINE F16 compress(F16 a, uint32_t mask) {
  const F16 packed = permute16(a, _pext_u64(kLaneNibbles, nibbles16(mask)));
  const int count = __builtin_popcount(mask & 0xffff);
  return F16(_mm256_and_ps(packed.lo, _mm256_castsi256_ps(lane_range(0, count))),
             _mm256_and_ps(packed.hi, _mm256_castsi256_ps(lane_range(0, count - 8))));
}

// Sixteen pairs in memory order, and their first and second elements.
struct Pairs {
  F16 a, b;
};
RS_INLINE __m256 in_order(__m256 a) {  // the middle quarters change places
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xd8));
}
RS_INLINE Pairs split_pairs(Pairs x) {
  const F16 first(in_order(_mm256_shuffle_ps(x.a.lo, x.a.hi, 0x88)), in_order(_mm256_shuffle_ps(x.b.lo, x.b.hi, 0x88)));
  const F16 second(in_order(_mm256_shuffle_ps(x.a.lo, x.a.hi, 0xdd)),
                   in_order(_mm256_shuffle_ps(x.b.lo, x.b.hi, 0xdd)));
  return Pairs{first, second};
}
RS_INLINE Pairs join_pairs(Pairs x) {
  const auto join = [](__m256 a, __m256 b) {
    const __m256 low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
    return F16(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
  };
  return Pairs{join(x.a.lo, x.b.lo), join(x.a.hi, x.b.hi)};
}

// ---- memory ------------------------------------------------------------------------------------------------------

RS_INLINE F16 load(const float* p) { return F16(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
RS_INLINE F16 load(const float* p, uint32_t lanes) {
  return F16(_mm256_maskload_ps(p, lanes8(lanes)), _mm256_maskload_ps(p + 8, lanes8(lanes >> 8)));
}
RS_INLINE void store(float* p, F16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}

// The first n lanes of a to p, and nothing beyond: whole stores that overlap.
RS_INLINE void store_first(float* p, F16 a, int n) {
  if (n >= 8) {
    _mm256_storeu_ps(p, a.lo);
    const __m256i last = _mm256_add_epi32(lane_numbers(), _mm256_set1_epi32(n - 8));
    _mm256_storeu_ps(p + n - 8, pick8(a, last));
  } else if (n >= 4) {
    const __m256i last = _mm256_add_epi32(lane_numbers(), _mm256_set1_epi32(n - 4));
    _mm_storeu_ps(p, _mm256_castps256_ps128(a.lo));
    _mm_storeu_ps(p + n - 4, _mm256_castps256_ps128(_mm256_permutevar8x32_ps(a.lo, last)));
  } else {
    const __m128 low = _mm256_castps256_ps128(a.lo);
    if (n >= 2) _mm_storel_pi(reinterpret_cast<__m64*>(p), low);
    if (n == 3) _mm_store_ss(p + 2, _mm_movehl_ps(low, low));
    if (n == 1) _mm_store_ss(p, low);
  }
}
// `lanes` is a run from lane 0.
RS_INLINE void store(float* p, F16 a, uint32_t lanes) {
  if (lanes == 0xffff) return store(p, a);
  store_first(p, a, __builtin_popcount(lanes));
}

// Bypasses the caches; p is 64-byte aligned.
RS_INLINE void stream(float* p, F16 a) {
  _mm256_stream_ps(p, a.lo);
  _mm256_stream_ps(p + 8, a.hi);
}
RS_INLINE void stream_fence() { _mm_sfence(); }

// The first n values at p (n <= 8), zero in the other lanes. An access that crosses into another cache line although none
// of the values is there would fetch it (see `step_back` of isa_avx512.h): where the values lie in one 32-byte sector the
// access is moved to its start.
RS_INLINE __m256 load_first8(const float* p, int n) {
  const int offset = static_cast<int>(reinterpret_cast<uintptr_t>(p) / 4 & 7);
  const int back = offset & (offset + n - 9) >> 31;  // without a branch: whether a row crosses is as good as random
  const __m256 sector = _mm256_maskload_ps(p - back, lane_range(back, back + n));
  return _mm256_permutevar8x32_ps(sector, _mm256_add_epi32(lane_numbers(), _mm256_set1_epi32(back)));
}
// The first n values at p (n <= 16), zero in the other lanes; touches no cache line but theirs.
RS_INLINE F16 load_first(const float* p, int n) {
  const int low = n < 8 ? n : 8;
  return F16(load_first8(p, low), load_first8(p + (n > 8 ? 8 : 0), n - low));
}

// Ascending values at p go to the lanes of `mask`, zero elsewhere; reads popcount(mask) of them. A lane outside of the
// mask asks for lane 7, which the load has left zero unless all eight are wanted.
RS_INLINE __m256 expand8(const float* p, uint32_t mask, int count) {
  const uint32_t nibbles = nibbles8(mask);
  const __m256 packed = _mm256_maskload_ps(p, lane_range(0, count));
  return permute8(packed, _pdep_u32(0x76543210u, nibbles) | ~nibbles);
}
RS_INLINE F16 expand(const float* p, uint32_t mask) {
  const int low = __builtin_popcount(mask & 0xff), high = __builtin_popcount(mask >> 8 & 0xff);
  return F16(expand8(p, mask & 0xff, low), expand8(p + low, mask >> 8 & 0xff, high));
}

// ---- sixteen-bit storage -----------------------------------------------------------------------------------------

RS_INLINE F16 widen(Half, __m256i bits) {
  return F16(_mm256_cvtph_ps(_mm256_castsi256_si128(bits)), _mm256_cvtph_ps(_mm256_extracti128_si256(bits, 1)));
}
RS_INLINE F16 widen(BFloat16, __m256i bits) {
  const __m256i lo = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(bits));
  const __m256i hi = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(bits, 1));
  return F16(_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16)));
}
RS_INLINE __m256i narrow(Half, F16 a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return _mm256_set_m128i(_mm256_cvtps_ph(a.hi, kMode), _mm256_cvtps_ph(a.lo, kMode));
}
// In the low half of each lane.
RS_INLINE __m256i narrow_bfloat16(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a), high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), quiet, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
}
RS_INLINE __m256i narrow(BFloat16, F16 a) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(narrow_bfloat16(a.lo), narrow_bfloat16(a.hi)), 0xd8);
}

// The first n values at p (n <= 16), zero behind them: whole pairs, then the odd one. Starts `back` pairs before p.
template <class S>
RS_INLINE __m256i load_pairs(const S* p, int n, int back) {
  if (n == 0) return _mm256_setzero_si256();
  const __m256i lane = lane_numbers(), pairs = lane_range(back, back + n / 2);
  const __m256i loaded = _mm256_maskload_epi32(reinterpret_cast<const int*>(p - 2 * back), pairs);
  const __m256i place = _mm256_cmpeq_epi32(lane, _mm256_set1_epi32(n % 2 ? n / 2 : -1));
  const __m256i last = _mm256_and_si256(place, _mm256_set1_epi32(p[n - 1].bits));
  return _mm256_or_si256(_mm256_permutevar8x32_epi32(loaded, _mm256_add_epi32(lane, _mm256_set1_epi32(back))), last);
}
template <class S>
RS_INLINE F16 load(const S* p) {
  return widen(S{}, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
template <class S>
RS_INLINE F16 load(const S* p, uint32_t lanes) {
  if (lanes == 0xffff) return load(p);
  return widen(S{}, load_pairs(p, __builtin_popcount(lanes), 0));
}
template <class S>
RS_INLINE F16 load_first(const S* p, int n) {
  const int offset = static_cast<int>(reinterpret_cast<uintptr_t>(p) & 63), beyond = offset - 32;  // in bytes
  return widen(S{}, load_pairs(p, n, beyond > 0 && offset + 2 * n <= 64 ? (beyond + 3) / 4 : 0));
}
template <class S>
RS_INLINE void store(S* p, F16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(S{}, a));
}
template <class S>
RS_INLINE void store_first(S* p, F16 a, int n) {
  alignas(32) uint16_t bits[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(bits), narrow(S{}, a));
  const auto twice = [&](auto whole) {  // the first and the last few values
    constexpr int kSize = sizeof(whole) / 2;
    std::memcpy(&whole, bits + n - kSize, sizeof(whole));
    std::memcpy(p, bits, sizeof(whole));
    std::memcpy(p + n - kSize, &whole, sizeof(whole));
  };
  if (n >= 8) {
    twice(__m128i());
  } else if (n >= 4) {
    twice(uint64_t());
  } else if (n >= 2) {
    twice(uint32_t());
  } else if (n == 1) {
    std::memcpy(p, bits, 2);
  }
}
template <class S>
RS_INLINE void store(S* p, F16 a, uint32_t lanes) {
  if (lanes == 0xffff) return store(p, a);
  store_first(p, a, __builtin_popcount(lanes));
}
template <class S>
RS_INLINE void stream(S* p, F16 a) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), narrow(S{}, a));
}
template <class S>
RS_INLINE F16 expand(const S* p, uint32_t mask) {
  return expand(load(p, (1u << __builtin_popcount(mask)) - 1), mask);
}

// Lane i of a rounded to an S stochastically, for the weight at `position` + i of a row; see core/half.h. The result is a
// float that `store` converts exactly.
RS_INLINE __m256i rounding_lanes(RoundingKey key, uint32_t position) {
  const __m256i first = _mm256_set1_epi32(static_cast<int>(key.bits + position * kRoundingStride));
  const __m256i stride = _mm256_set1_epi32(static_cast<int>(kRoundingStride));
  __m256i x = _mm256_add_epi32(first, _mm256_mullo_epi32(lane_numbers(), stride));
  x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
  x = _mm256_mullo_epi32(x, _mm256_set1_epi32(static_cast<int>(0x85EBCA6Bu)));
  x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 13));
  x = _mm256_mullo_epi32(x, _mm256_set1_epi32(static_cast<int>(0xC2B2AE35u)));
  return _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
}
// `magnitude` of a finite number with the sign of a; a itself where it is none.
RS_INLINE __m256 with_sign_of(__m256 a, __m256i magnitude) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(kMagnitudeMask)), bits = _mm256_castps_si256(a);
  const __m256i out = _mm256_or_si256(_mm256_andnot_si256(mask, bits), magnitude);
  const __m256i finite = _mm256_cmpgt_epi32(_mm256_set1_epi32(kInfinityKey), _mm256_and_si256(bits, mask));
  return _mm256_castsi256_ps(_mm256_blendv_epi8(bits, out, finite));
}
RS_INLINE __m256i clamped_magnitude(__m256 a, uint32_t largest) {
  const __m256i magnitude =
      _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(static_cast<int>(kMagnitudeMask)));
  return _mm256_min_epu32(magnitude, _mm256_set1_epi32(static_cast<int>(largest)));
}
RS_INLINE __m256 round_stochastic8(BFloat16, __m256 a, RoundingKey key, uint32_t position) {
  const __m256i noise = _mm256_and_si256(rounding_lanes(key, position), _mm256_set1_epi32(0xffff));
  const __m256i sum = _mm256_add_epi32(clamped_magnitude(a, kLargestBFloat16), noise);
  return with_sign_of(a, _mm256_andnot_si256(_mm256_set1_epi32(0xffff), sum));
}
RS_INLINE __m256 round_stochastic8(Half, __m256 a, RoundingKey key, uint32_t position) {
  const __m256i random = rounding_lanes(key, position), magnitude = clamped_magnitude(a, kLargestHalf);
  const __m256i low = _mm256_set1_epi32(0x1fff), low_part = _mm256_set1_epi32(0x1fffff);
  const __m256i normal = _mm256_andnot_si256(low, _mm256_add_epi32(magnitude, _mm256_and_si256(random, low)));
  const __m256i parts = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_castsi256_ps(magnitude), _mm256_set1_ps(0x1p45f)));
  const __m256i units = _mm256_srli_epi32(_mm256_add_epi32(parts, _mm256_and_si256(random, low_part)), 21);
  const __m256 small = _mm256_mul_ps(_mm256_cvtepi32_ps(units), _mm256_set1_ps(0x1p-24f));
  const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(kSmallestNormalHalf), magnitude);
  return with_sign_of(a, _mm256_blendv_epi8(normal, _mm256_castps_si256(small), is_small));
}
RS_INLINE F16 round_stochastic(float, F16 a, RoundingKey, uint32_t) { return a; }
template <class S>
RS_INLINE F16 round_stochastic(S, F16 a, RoundingKey key, uint32_t position) {
  return F16(round_stochastic8(S{}, a.lo, key, position), round_stochastic8(S{}, a.hi, key, position + 8));
}

// ---- arithmetic --------------------------------------------------------------------------------------------------

// Sum of the lanes by halving: lane i + lane i+8, then +4, +2, +1.
RS_INLINE float reduce_add(F16 a) {
  const __m256 b = _mm256_add_ps(a.lo, a.hi);
  const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}

// Round to nearest integer, and 2^n for integral n in [-126, 127].
RS_INLINE F16 round(F16 a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return F16(_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode));
}
RS_INLINE __m256 exp2_integer8(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
RS_INLINE F16 exp2_integer(F16 n) { return F16(exp2_integer8(n.lo), exp2_integer8(n.hi)); }

// m / (sqrt(v) + eps) as in isa_avx512.h, from estimates of 12 bits instead of 14: relative error below 1e-6 and, because
// the makers' estimates differ, not the same last bits on every CPU.
RS_INLINE __m256 divide_by_root8(__m256 m, __m256 v, __m256 eps) {
  const __m256 safe = _mm256_max_ps(v, _mm256_set1_ps(1e-36f));
  const __m256 y = _mm256_rsqrt_ps(safe);
  const __m256 root = _mm256_mul_ps(safe, y);
  const __m256 error = _mm256_fnmadd_ps(root, y, _mm256_set1_ps(1.0f));  // 1 - v y^2
  const __m256 refined = _mm256_fmadd_ps(_mm256_mul_ps(root, _mm256_set1_ps(0.5f)), error, root);
  const __m256 denominator = _mm256_add_ps(refined, eps);
  const __m256 r = _mm256_rcp_ps(denominator);
  const __m256 quotient = _mm256_mul_ps(m, r);
  const __m256 residual = _mm256_fnmadd_ps(quotient, denominator, m);
  return _mm256_fmadd_ps(residual, r, quotient);
}
RS_INLINE F16 divide_by_root(F16 m, F16 v, F16 eps) {
  return F16(divide_by_root8(m.lo, v.lo, eps.lo), divide_by_root8(m.hi, v.hi, eps.hi));
}

// ---- masks -------------------------------------------------------------------------------------------------------

// 32-bit words to mask a block with, read from a place that depends on how many are wanted.
alignas(64) static const uint32_t kWordMasks[60] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
                                                    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
                                                    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};

// Ranks inside a block, see core/rows.h.
struct Rank {
  RS_INLINE_MEMBER static uint64_t mask_bits(const uint64_t* block, int words, int lines) {
    const char* masks = reinterpret_cast<const char*>(kWordMasks + 30 - words);
    uint64_t rank = 0;
    for (int i = 0; i < 8 * lines - 1; ++i) {
      uint64_t mask;
      std::memcpy(&mask, masks + 8 * i, 8);
      rank += static_cast<uint64_t>(__builtin_popcountll(block[1 + i] & mask));
    }
    return rank;
  }
  RS_INLINE_MEMBER static uint64_t lengths(const uint64_t* block, int n, bool wide) {
    const __m256i number = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
                                            21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
    const __m256i end = _mm256_set1_epi8(static_cast<char>(8 + (wide ? 2 * n : n)));  // in bytes; the base takes eight
    const __m256i behind_base = _mm256_setr_epi64x(0, -1, -1, -1);
    const __m256i low = _mm256_and_si256(behind_base, _mm256_cmpgt_epi8(end, number));
    const __m256i high = _mm256_cmpgt_epi8(end, _mm256_add_epi8(number, _mm256_set1_epi8(32)));
    const __m256i* line = reinterpret_cast<const __m256i*>(block);
    const __m256i first = _mm256_and_si256(_mm256_loadu_si256(line), low);
    const __m256i second = _mm256_and_si256(_mm256_loadu_si256(line + 1), high);
    const __m256i zero = _mm256_setzero_si256();
    // Lengths of 16 bits sum to less than 2^15 a lane, as 27 of them are at most 256.
    const __m256i sums = wide ? _mm256_madd_epi16(_mm256_add_epi16(first, second), _mm256_set1_epi16(1))
                              : _mm256_add_epi32(_mm256_sad_epu8(first, zero), _mm256_sad_epu8(second, zero));
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1))));
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
  const uint32_t in_a = pack_bits<N>(mask_b, mask_a), in_b = pack_bits<N>(mask_a, mask_b);
  const uint64_t nibbles_a = nibbles16(in_a), nibbles_b = nibbles16(in_b);
  Overlap out;
  out.b_at_a = keep_lanes(permute16(b, _pdep_u64(_pext_u64(kLaneNibbles, nibbles_b), nibbles_a)), in_a);
  out.a_at_b = keep_lanes(permute16(a, _pdep_u64(_pext_u64(kLaneNibbles, nibbles_a), nibbles_b)), in_b);
  return out;
}

}  // namespace recsparse::avx2
