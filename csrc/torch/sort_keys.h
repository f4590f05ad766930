// Whether the occurrences of a call can be sorted by row: a key holds the row and the position in 64 bits.
#pragma once

#include <c10/util/Exception.h>

#include "cpu/row_sort.h"

namespace recsparse {

inline void check_sort_keys(const char* op, int64_t rows, int64_t count) {
  const int bits = bits_for(static_cast<uint64_t>(rows)) + bits_for(static_cast<uint64_t>(count));
  TORCH_CHECK_VALUE(
      count < 1ll << 31 && bits <= 64, op, ": ", count, " ids are too many for a table of ", rows,
      " rows: expected fewer than 2^31, and a row and a position that fit in 64 bits together; use smaller "
      "batches");
}

}  // namespace recsparse
