// Checks of a table's recipe, shared by the backends.
#pragma once

#include "torch/check.h"

namespace recsparse {

// start: InitStart of cpu/init.h. Also that `index` and `cols` have the sizes that such a table has.
inline Layout check_init_index(const at::Tensor& index, const at::Tensor& cols, int64_t kind, int64_t rows, int64_t dim,
                               int64_t start, int64_t kept, c10::Device device = at::kCPU) {
  constexpr int64_t kFull = 0, kBernoulli = 2;
  const Layout layout = check_layout("init_index_", kind, rows, dim);
  TORCH_CHECK_VALUE(start >= 0 && start <= 2, "init_index_: start is ", start, ", expected 0, 1 or 2");
  TORCH_CHECK_VALUE(kept >= 0 && kept <= rows * dim, "init_index_: kept is ", kept, ", expected 0..", rows * dim);
  TORCH_CHECK_VALUE(layout.kind != IndexKind::full || start == kFull,
                    "init_index_: kind full starts full; use kind bits or cols8");
  TORCH_CHECK_VALUE(layout.kind != IndexKind::prefix || start != kBernoulli,
                    "init_index_: kind prefix cannot hold a random mask; use kind bits or cols8");
  TORCH_CHECK_VALUE(start != kFull || kept == rows * dim, "init_index_: a full start keeps ", rows * dim,
                    " weights, kept is ", kept);
  const int64_t capacity = layout.kind == IndexKind::full ? rows * dim : cols.numel();
  check_index("init_index_", index, cols, capacity, kind, rows, dim, device);
  TORCH_CHECK_VALUE(layout.kind != IndexKind::cols8 || cols.numel() >= kept, "init_index_: cols has ", cols.numel(),
                    " entries, expected at least kept = ", kept);
  return layout;
}

}  // namespace recsparse
