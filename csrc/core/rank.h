// What every implementation of rank shares: the order of (score, item) pairs, and which rows it refuses.
#pragma once

#include <cstdint>

#include "float_order.h"

namespace recsparse {

// A row with a larger Euclidean norm cannot be ranked: a product of two such rows could overflow.
constexpr float kRankLargestNorm = 1e18f;

// A larger key is a better pair: higher score first, then lower item. Never 0.
RS_INLINE uint64_t rank_key(float score, int32_t item) {
  return static_cast<uint64_t>(ordered_key(score)) << 32 | (0xffffffffu - static_cast<uint32_t>(item));
}
RS_INLINE int32_t rank_item(uint64_t key) { return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key)); }
RS_INLINE float rank_key_score(uint64_t key) {
  const uint32_t order = static_cast<uint32_t>(key >> 32);
  return bits_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

}  // namespace recsparse
