// The k best (score, item) pairs of a user, as a heap of 64-bit keys with the worst on top. A larger key is a better pair:
// higher score first, then lower item.
#pragma once

#include "core/float_order.h"

namespace recsparse {

RS_INLINE uint64_t rank_key(float score, int32_t item) {
  return static_cast<uint64_t>(ordered_key(score)) << 32 | (0xffffffffu - static_cast<uint32_t>(item));
}
RS_INLINE int32_t rank_item(uint64_t key) { return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key)); }
RS_INLINE float rank_key_score(uint64_t key) {
  const uint32_t order = static_cast<uint32_t>(key >> 32);
  return bits_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

// Puts `key` in the place of the top and restores the order of the `n` keys.
RS_INLINE void heap_replace(uint64_t* heap, int64_t n, uint64_t key) {
  int64_t hole = 0;
  for (int64_t child = 1; child < n; child = 2 * hole + 1) {
    child += child + 1 < n && heap[child + 1] < heap[child];
    if (key <= heap[child]) break;
    heap[hole] = heap[child];
    hole = child;
  }
  heap[hole] = key;
}

// Adds `key` to the `n` keys that are there.
RS_INLINE void heap_push(uint64_t* heap, int64_t n, uint64_t key) {
  int64_t hole = n;
  for (int64_t parent; hole > 0 && key < heap[parent = (hole - 1) / 2]; hole = parent) heap[hole] = heap[parent];
  heap[hole] = key;
}

}  // namespace recsparse
