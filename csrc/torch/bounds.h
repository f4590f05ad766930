// What an id outside the table does.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace recsparse {

enum Bounds : int64_t { fatal = 0, warning = 1, ignore = 2 };

inline void check_bounds_mode(const char* op, int64_t bounds) {
  TORCH_CHECK_VALUE(bounds >= fatal && bounds <= ignore, op, ": bounds is ", bounds, ", expected 0, 1 or 2");
}

// Says that `count` ids are bad, the first of them at position `first`.
inline void report_bad_ids(const char* op, const at::Tensor& ids, int64_t rows, int64_t count, int64_t first,
                           int64_t bounds) {
  if (count == 0 || bounds == ignore) return;
  const int64_t id = ids.const_data_ptr<int64_t>()[first];
  TORCH_CHECK_INDEX(bounds != fatal, op, ": ids[", first, "] = ", id, " is out of range, expected 0..", rows - 1, " (",
                    count, " of ", ids.numel(), " ids are)");
  TORCH_WARN(op, ": ", count, " of ", ids.numel(), " ids are out of range 0..", rows - 1, ", first ids[", first,
             "] = ", id, "; row 0 was read instead");
}

}  // namespace recsparse
