// The int8 screen of rank: four columns a step, 64 products an instruction (VNNI), with a rigorous bound. Include after
// rank_kernel.h and isa_avx512.h.
//
// A user u is rounded to û = su * qu and an item i of a panel to î = sp * qi, with integers in -127 .. 127. Then
//   |u.i - û.î| <= |u - û| |i| + |û| |i - î|,
// so an item whose integer score q = qu.qi does not exceed (threshold - that) / (su sp) cannot enter the list. The limit is
// worked out once a user and panel; the blocks compare integers. The instruction wants one factor unsigned: items are
// stored as qi + 128, and the 128 * sum(qu) that this adds is part of the limit.
#pragma once

#include "cpu/rank_kernel.h"

namespace recsparse::avx512 {

struct RankInt8 {
  static constexpr int kUsers = 8, kVectors = 3, kColumns = 4;
  static constexpr int kSeedStride = 8;
  static constexpr bool kGivesUp = true;
  using Words = __m512i;
  struct Sum {
    __m512i r;
  };
  using Limit = int32_t;

  RS_INLINE_MEMBER static Sum zero() { return Sum{_mm512_setzero_si512()}; }
  RS_INLINE_MEMBER static __m512i load_words(const uint32_t* p) { return _mm512_loadu_si512(p); }
  RS_INLINE_MEMBER static __m512i broadcast(const uint32_t* p) { return _mm512_set1_epi32(static_cast<int>(*p)); }
  // _mm512_dpbusd_epi32(sum, items, user) but for its code: g++ 12 copies each sum before and after, and stores it too.
  RS_INLINE_MEMBER static Sum add_products(__m512i user, __m512i items, Sum sum) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.r) : "v"(items), "v"(user));
    return sum;
  }
  RS_INLINE_MEMBER static Sum larger(Sum a, Sum b) { return Sum{_mm512_max_epi32(a.r, b.r)}; }
  RS_INLINE_MEMBER static uint32_t above(Sum a, int32_t limit) {
    return _mm512_cmpgt_epi32_mask(a.r, _mm512_set1_epi32(limit));
  }
  RS_INLINE_MEMBER static bool any_above(Sum a, int32_t limit) { return above(a, limit) != 0; }

  // Steps per unit for numbers up to `largest`; numbers that are all tiny become 0, and their residual says so.
  RS_INLINE_MEMBER static float inverse_scale(float largest) { return largest > 1e-15f ? 127.0f / largest : 1.0f; }

  // Sixteen columns as signed bytes; adds the squares of what they lose to `lost`.
  RS_INLINE_MEMBER static __m128i quantise(F16 x, float inverse, float scale, F16& lost) {
    const F16 q = round(x * F16(inverse));
    const F16 rest = x - q * F16(scale);
    lost = fma(rest, rest, lost);
    return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(q.r));
  }
  // Norm of the residual, with the rounding of `scale` and of the subtraction.
  RS_INLINE_MEMBER static float residual_norm(F16 lost, float norm) {
    return kRankUp * __builtin_sqrtf(reduce_add(lost)) + 0x1p-20f * norm;
  }

  RS_INLINE_MEMBER static RankBound pack_panel(const float* rows, int lanes, int dim, float largest, float norm,
                                               uint32_t* words) {
    constexpr int kWidth = 16 * kVectors;
    const float inverse = inverse_scale(largest), scale = 1.0f / inverse;
    const int steps = rank_steps<RankInt8>(dim);
    float residual = 0;
    for (int lane = 0; lane < lanes; ++lane) {
      const float* row = rows + static_cast<int64_t>(lane) * dim;
      F16 lost(0.0f);
      for (int c = 0; c < dim; c += 16) {
        const __m128i q = quantise(load(row + c, rank_lanes(dim, c)), inverse, scale, lost);
        alignas(16) uint32_t four[4];
        _mm_store_si128(reinterpret_cast<__m128i*>(four), _mm_xor_si128(q, _mm_set1_epi8(-128)));  // + 128
        for (int i = 0; i < 4 && c / 4 + i < steps; ++i) words[(c / 4 + i) * kWidth + lane] = four[i];
      }
      const float rest = residual_norm(lost, norm);
      residual = rest > residual ? rest : residual;
    }
    for (int lane = lanes; lane < kWidth; ++lane) {
      for (int step = 0; step < steps; ++step) words[step * kWidth + lane] = 0x80808080u;
    }
    return RankBound{norm, norm > 0 ? residual : 0.0f, inverse};
  }

  RS_INLINE_MEMBER static void pack_user(const float* row, int dim, RowSize size, int u, RankTile& tile,
                                         uint32_t* words) {
    const float inverse = inverse_scale(size.largest), scale = 1.0f / inverse;
    const int steps = rank_steps<RankInt8>(dim);
    F16 lost(0.0f);
    int64_t sum = 0;
    for (int c = 0; c < dim; c += 16) {
      const F16 x = row ? load(row + c, rank_lanes(dim, c)) : F16(0.0f);
      const __m128i q = quantise(x, inverse, scale, lost);
      sum += _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(q));
      alignas(16) uint32_t four[4];
      _mm_store_si128(reinterpret_cast<__m128i*>(four), q);
      for (int i = 0; i < 4 && c / 4 + i < steps; ++i) words[(c / 4 + i) * kUsers] = four[i];
    }
    tile.residual[u] = size.norm > 0 ? residual_norm(lost, size.norm) : 0.0f;
    tile.inverse_scale[u] = inverse;
    tile.offset[u] = static_cast<float>(128 * sum);
  }

  RS_INLINE_MEMBER static F16 error(F16 norm, F16 residual, const RankBound& panel, float rounding) {
    return fma(norm, F16(rounding), residual) * F16(kRankUp * panel.norm) +
           (norm + residual) * F16(kRankUp * panel.residual);
  }

  // score >= (sum - offset) * scale - error; the arithmetic of that itself is covered by the rounding of the error, twice.
  struct Lower {
    F16 offset, scale, error;
  };
  RS_INLINE_MEMBER static Lower lower_bound(const RankBound& panel, float rounding, const RankTile& tile, int user) {
    return Lower{F16(tile.offset[user]), F16(1.0f / (tile.inverse_scale[user] * panel.inverse_scale)),
                 error(F16(tile.norm[user]), F16(tile.residual[user]), panel, 2 * rounding)};
  }
  RS_INLINE_MEMBER static F16 lower(Sum sum, const Lower& bound) {
    return (F16(_mm512_cvtepi32_ps(sum.r)) - bound.offset) * bound.scale - bound.error;
  }

  RS_INLINE_MEMBER static void set_limits(const RankBound& panel, float rounding, RankTile& tile, int users) {
    const F16 zero(0.0f), large(0x1p29f), minus_large(-0x1p29f), step(1.0f);
    for (int u = 0; u < users; u += 16) {
      const F16 threshold = load(tile.threshold + u), norm = load(tile.norm + u), residual = load(tile.residual + u);
      const F16 slack = error(norm, residual, panel, rounding);
      const F16 exact = (threshold - slack) * load(tile.inverse_scale + u) * F16(panel.inverse_scale);
      const F16 limit = max(min(exact, large), minus_large);
      const F16 closest = round(limit - abs(limit) * F16(0x1p-20f)) - step;
      // A zero row on either side: the score is 0 exactly.
      const F16 of_zero = select(greater(zero, threshold), minus_large, large);
      const F16 chosen = select(greater(slack, zero), closest, of_zero);
      const __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(chosen.r), _mm512_cvtps_epi32(load(tile.offset + u).r));
      _mm512_storeu_si512(tile.limits + u, whole);
    }
  }
};

}  // namespace recsparse::avx512
