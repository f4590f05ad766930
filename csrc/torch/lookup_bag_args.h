// Checks of the arguments of `lookup_bag` and its backwards, shared by the backends.
#pragma once

#include <optional>

#include "torch/check.h"

namespace recsparse {

struct BagMode {
  enum : int64_t { sum = 0, mean = 1 };
};

inline int64_t count_bags(const char* op, const at::Tensor& offsets, bool include_last_offset) {
  TORCH_CHECK_VALUE(!include_last_offset || offsets.numel() >= 1, op,
                    ": offsets is empty, expected at least the last offset");
  return offsets.numel() - (include_last_offset ? 1 : 0);
}

inline void check_bag_arguments(const char* op, const at::Tensor& ids, const std::optional<at::Tensor>& weights,
                                at::ScalarType dtype, int64_t mode, int64_t padding, int64_t rows,
                                c10::Device device = at::kCPU) {
  check_vector(ids, op, "ids", at::kLong, device);
  TORCH_CHECK_VALUE(mode == BagMode::sum || mode == BagMode::mean, op, ": mode is ", mode,
                    ", expected 0 (sum) or 1 (mean)");
  check_padding(op, padding, rows);
  if (!weights) return;
  check_vector(*weights, op, "per_sample_weights", dtype, device);
  TORCH_CHECK_VALUE(mode == BagMode::sum, op, ": per_sample_weights need mode sum, as in torch");
  TORCH_CHECK_VALUE(weights->numel() == ids.numel(), op, ": per_sample_weights has ", weights->numel(),
                    " entries, expected ", ids.numel(), " as ids");
}

inline void check_bag_grad(const char* op, const at::Tensor& grad, int64_t bags, int64_t dim) {
  TORCH_CHECK_VALUE(grad.dim() == 2 && grad.size(0) == bags && grad.size(1) == dim, op, ": grad has shape ",
                    grad.sizes(), ", expected [", bags, ", ", dim, "]");
}

}  // namespace recsparse
