// The float32 screen of rank: fused multiply-adds, one column a step. Include after rank_kernel.h.
#pragma once

#include "cpu/rank_kernel.h"

namespace recsparse::RS_ISA {

template <int Users, int Vectors>
struct RankFloat32 {
  static constexpr int kUsers = Users, kVectors = Vectors, kColumns = 1;
  static constexpr int kSeedStride = 16;
  static constexpr bool kGivesUp = false;
  using Words = F16;
  using Sum = F16;
  using Limit = float;

  RS_INLINE_MEMBER static F16 zero() { return F16(0.0f); }
  RS_INLINE_MEMBER static F16 load_words(const uint32_t* p) { return load(reinterpret_cast<const float*>(p)); }
  RS_INLINE_MEMBER static F16 broadcast(const uint32_t* p) { return F16(*reinterpret_cast<const float*>(p)); }
  RS_INLINE_MEMBER static F16 add_products(F16 user, F16 items, F16 sum) { return fma(user, items, sum); }
  RS_INLINE_MEMBER static F16 larger(F16 a, F16 b) { return max(a, b); }
  RS_INLINE_MEMBER static bool any_above(F16 a, float limit) { return greater(a, F16(limit)) != 0; }
  RS_INLINE_MEMBER static uint32_t above(F16 a, float limit) { return greater(a, F16(limit)); }

  RS_INLINE_MEMBER static RankBound pack_panel(const float* rows, int lanes, int dim, float, float norm,
                                               uint32_t* words) {
    constexpr int kWidth = 16 * kVectors;
    float* out = reinterpret_cast<float*>(words);
    for (int lane = 0; lane < kWidth; ++lane) {
      for (int c = 0; c < dim; ++c) out[c * kWidth + lane] = lane < lanes ? rows[lane * dim + c] : 0.0f;
    }
    return RankBound{norm, 0, 0};
  }

  RS_INLINE_MEMBER static void pack_user(const float* row, int dim, RowSize, int, RankTile&, uint32_t* words) {
    for (int c = 0; c < dim; ++c) reinterpret_cast<float*>(words)[c * kUsers] = row ? row[c] : 0.0f;
  }

  // What to add to a score for a lower bound of the score of the pair.
  RS_INLINE_MEMBER static F16 lower_bound(const RankBound& panel, float rounding, const RankTile& tile, int user) {
    return F16(tile.norm[user] * panel.norm * -rounding);
  }
  RS_INLINE_MEMBER static F16 lower(F16 sum, F16 bound) { return sum + bound; }

  // A pair of which one row is zero has the score 0 exactly: its limit is the threshold itself.
  RS_INLINE_MEMBER static void set_limits(const RankBound& panel, float rounding, RankTile& tile, int users) {
    const F16 zero(0.0f);
    for (int u = 0; u < users; u += 16) {
      const F16 threshold = load(tile.threshold + u);
      const F16 error = load(tile.norm + u) * F16(panel.norm * rounding);
      const F16 below = threshold - (error + abs(threshold) * F16(0x1p-22f));
      store(reinterpret_cast<float*>(tile.limits) + u, select(greater(error, zero), below, threshold));
    }
  }
};

}  // namespace recsparse::RS_ISA
