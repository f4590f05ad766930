// Generated interactions: planted low-rank taste and power-law popularity, as pure functions of (seed, user, number).
//
// Items form clusters; inside a cluster popularity falls with rank, and clusters themselves differ in popularity. A user
// has three tastes (clusters) of falling weight and sometimes follows general popularity. Nothing is stored, so a
// catalogue of any size can be streamed; integers only, so every compiler and device draws the same bits.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/philox.h"
#include "core/sampling.h"

namespace recsparse {

constexpr int64_t kClusterItems = 100;  // items in a cluster, about
constexpr int kSyntheticTastes = 3;
constexpr int kMaxSyntheticDegree = 1024;      // so that the positives of a user fit on the stack
constexpr uint32_t kProfileDraw = UINT32_MAX;  // counter word of the draw that makes a user's profile

struct SyntheticSpec {
  uint64_t seed;
  int64_t n_users;
  int64_t n_items;  // below 2^31
  int32_t min_degree;
  int32_t max_degree;  // below n_items and at most kMaxSyntheticDegree
  int64_t n_clusters;
  int item_bits;
  ShuffleKeys item_keys;
};

struct SyntheticUser {
  int32_t degree;
  uint32_t taste[kSyntheticTastes];
};

RS_INLINE SyntheticSpec make_synthetic(int64_t n_users, int64_t n_items, int32_t min_degree, int32_t max_degree,
                                       uint64_t seed) {
  const int64_t clusters = n_items / kClusterItems;
  // User ids stay far below 2^64 - 1, so this counter is free for the keys.
  return SyntheticSpec{seed,
                       n_users,
                       n_items,
                       min_degree,
                       max_degree,
                       clusters > 0 ? clusters : 1,
                       bits_for(static_cast<uint64_t>(n_items)),
                       shuffle_keys(seed, UINT64_MAX, kStreamSynthetic)};
}

// Rank in [0, n) with probability close to 1 / (rank + n / (2^Octaves - 1)): n (2^(Octaves x) - 1) / (2^Octaves - 1) for
// uniform x, where 2^f on [0, 1) is the parabola 1 + f (21/32 + 11/32 f), within 0.3 %.
template <int Octaves>
RS_INLINE uint32_t power_law(uint32_t random, uint32_t n) {
  const uint64_t x = uint64_t{random} * Octaves;
  const uint64_t f = static_cast<uint32_t>(x) >> 1;  // Q31
  const uint64_t slope = (uint64_t{21} << 26) + ((f * 11) >> 5);
  const uint64_t power = (((uint64_t{1} << 31) + ((f * slope) >> 31)) << (x >> 32)) - (uint64_t{1} << 31);
  const uint64_t share = power / ((uint64_t{1} << Octaves) - 1);  // Q31
  return static_cast<uint32_t>((share * n) >> 31);
}

RS_INLINE uint32_t draw_cluster(const SyntheticSpec& spec, uint32_t random) {
  return power_law<4>(random, static_cast<uint32_t>(spec.n_clusters));
}

RS_INLINE SyntheticUser synthetic_user(const SyntheticSpec& spec, uint64_t user) {
  const Philox4 r = philox(spec.seed, user, kProfileDraw, kStreamSynthetic);
  SyntheticUser out{};
  const uint32_t degrees = static_cast<uint32_t>(spec.max_degree - spec.min_degree + 1);
  out.degree = spec.min_degree + static_cast<int32_t>(power_law<6>(r.w[0], degrees));
  for (int t = 0; t < kSyntheticTastes; ++t) out.taste[t] = draw_cluster(spec, r.w[1 + t]);
  return out;
}

// Place of an item before ids are scrambled: cluster + n_clusters * rank. Distinct places are distinct items.
RS_INLINE uint32_t synthetic_place(const SyntheticSpec& spec, const SyntheticUser& user, uint32_t choice,
                                   uint32_t rank_random) {
  const uint32_t sixteenth = choice >> 28;
  const uint32_t cluster = sixteenth < 7    ? user.taste[0]
                           : sixteenth < 11 ? user.taste[1]
                           : sixteenth < 13 ? user.taste[2]
                                            : draw_cluster(spec, choice << 4);
  const uint32_t clusters = static_cast<uint32_t>(spec.n_clusters);
  const uint32_t size = (static_cast<uint32_t>(spec.n_items) - cluster + clusters - 1) / clusters;
  return cluster + clusters * power_law<4>(rank_random, size);
}

// Places of interactions 2 * pair and 2 * pair + 1: one Philox block serves two.
RS_INLINE void synthetic_pair(const SyntheticSpec& spec, const SyntheticUser& profile, uint64_t user, uint32_t pair,
                              uint32_t* places) {
  const Philox4 r = philox(spec.seed, user, pair, kStreamSynthetic);
  places[0] = synthetic_place(spec, profile, r.w[0], r.w[1]);
  places[1] = synthetic_place(spec, profile, r.w[2], r.w[3]);
}

// The public id of a place: scrambled, so that ids tell nothing about popularity.
RS_INLINE int64_t synthetic_item(const SyntheticSpec& spec, uint32_t place) {
  return static_cast<int64_t>(shuffled(place, static_cast<uint64_t>(spec.n_items), spec.item_bits, spec.item_keys));
}

}  // namespace recsparse
