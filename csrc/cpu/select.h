// select: the exact k-th largest of an array of magnitudes, of any value type, or of any uint32 keys.
#pragma once

#include <cstdint>

#include "core/half.h"

namespace recsparse {

// The k largest keys are {key > threshold} and the first `ties` of {key == threshold}, in order of position.
struct Selection {
  uint32_t threshold = 0;
  int64_t ties = 0;
  uint32_t max_key = 0;  // of the whole array: tells whether it holds a NaN
};

// Keys are bits[i] & mask, i < n; 1 <= k <= n. Reads the array about once. The result is a pure function of the
// arguments: `threads` changes nothing but the time. Extra memory: at most n / 6 bytes and 1 MB.
Selection select_keys(const uint32_t* bits, int64_t n, uint32_t mask, int64_t k, int threads);

struct NanScan {
  int64_t count = 0;
  int64_t first = -1;
};

// Magnitudes of `values`, 0 <= k <= n; k = 0 gives threshold infinity, ties 0. With a NaN in `values` only
// `nan` is meaningful.
struct MagnitudeSelection {
  uint32_t threshold = 0;  // bits of a value
  int64_t ties = 0;
  NanScan nan;
};
MagnitudeSelection select_magnitude(ValueType type, const void* values, int64_t n, int64_t k, int threads);

// What a pass over keys finds out besides the keys inside the bracket (lo, hi].
struct BracketCounts {
  int64_t above = 0;     // key > hi
  int64_t equal_lo = 0;  // counted, not copied: the zeros of freshly grown weights may be a large part of all
  uint32_t max_key = 0;
};

// One variant for an instruction set: adds the keys of `bits` to `counts`, writes those inside (lo, hi] to `inside`
// (room for size + 16) and returns how many.
struct SelectKernel {
  int64_t (*bracket)(const uint32_t* bits, int64_t size, uint32_t mask, uint32_t lo, uint32_t hi, BracketCounts* counts,
                     uint32_t* inside);
};

}  // namespace recsparse
