// Occurrences of rows in a batch, sorted by row: what the ops that update rows share. No float atomics: an occurrence is
// found by its sorted key, a row's occurrences are summed in a fixed order.
#pragma once

#include <cstdint>

#include "core/sampling.h"

namespace recsparse::cuda {

// keys[i] = row << shift | occurrence, ascending. A row of `rows` or more is nobody's.
struct Runs {
  const uint64_t* keys;
  int64_t count;
  int shift;
  int64_t rows;
  uint32_t* long_count;       // how many rows `long_heads` names
  int64_t* long_heads;        // [long_room] position of the first key of a row with more than kLongRun occurrences
  uint64_t row_mask = ~0ull;  // bits of a row in a key, shifted: what lies above is not compared
};

// A run of up to this many occurrences is summed by the lanes that own the row, a longer one by a whole block. 64 loads of
// a gradient in a row take some 10 us, as long as a small launch; a popular item of a Zipf batch of 65,536 has thousands.
constexpr int kLongRun = 64;

inline int64_t long_room(int64_t count) { return count / (kLongRun + 1) + 1; }

}  // namespace recsparse::cuda
