// The k best (score, item) pairs of a user, as a heap of 64-bit keys (core/rank.h) with the worst on top.
#pragma once

#include "core/rank.h"

namespace recsparse {

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
