// Sorting of the row ids of a batch, so that each distinct row is updated once and by one thread.
#pragma once

#include <cstdint>

#include "core/sampling.h"

namespace recsparse {

// Sorts keys by their bits [low, low + bits), least significant digit first, stable. `scratch` holds `count` words.
// Returns whichever of the two arrays has the result.
uint64_t* radix_sort(uint64_t* keys, uint64_t* scratch, int64_t count, int low, int bits);

// The first position >= i that starts a new row (keys are sorted, row = key >> shift).
static inline int64_t row_boundary(const uint64_t* keys, int64_t count, int shift, int64_t i) {
  if (i <= 0) return 0;
  while (i < count && keys[i] >> shift == keys[i - 1] >> shift) ++i;
  return i < count ? i : count;
}

}  // namespace recsparse
