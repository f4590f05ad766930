// Checks of soft_threshold's arguments, and the view that kernels get.
#pragma once

#include "core/row_layout.h"
#include "cpu/soft_threshold.h"
#include "torch/check.h"

namespace recsparse {

// `ids` are checked for type and shape only: their range is for the device to see.
inline SoftThresholdArgs check_soft_threshold(const char* op, const at::Tensor& values, const at::Tensor& thresholds,
                                              const std::optional<at::Tensor>& ids, c10::Device device = at::kCPU) {
  check_tensor(values, op, "values", at::kFloat, device);
  check_tensor(thresholds, op, "thresholds", at::kFloat, device);
  TORCH_CHECK_VALUE(values.dim() == 2 && values.size(1) >= 1 && values.size(1) <= kMaxDim, op, ": values has shape ",
                    values.sizes(), ", expected [rows, dim] with dim 1..", kMaxDim);
  const int64_t rows = values.size(0), dim = values.size(1);
  const bool two = thresholds.dim() == 2;
  TORCH_CHECK_VALUE(two && (thresholds.size(0) == 1 || thresholds.size(0) == rows) &&
                        (thresholds.size(1) == 1 || thresholds.size(1) == dim),
                    op, ": thresholds has shape ", thresholds.sizes(), ", expected [1 or ", rows, ", 1 or ", dim, "]");
  if (ids) check_vector(*ids, op, "ids", at::kLong, device);
  return SoftThresholdArgs{
      rows,
      dim,
      values.const_data_ptr<float>(),
      Thresholds{thresholds.const_data_ptr<float>(), thresholds.size(0) != 1, thresholds.size(1) != 1},
      ids ? ids->const_data_ptr<int64_t>() : nullptr,
      ids ? ids->numel() : rows,
      nullptr};
}

// Shape of the gradient of the thresholds: rows of their own have one for each id.
inline std::array<int64_t, 2> threshold_grad_shape(const SoftThresholdArgs& args) {
  return {args.thresholds.by_row ? args.count : 1, args.thresholds.by_column ? args.dim : 1};
}

inline void check_threshold_grad(const at::Tensor& grad, const SoftThresholdArgs& args, c10::Device device = at::kCPU) {
  check_tensor(grad, "soft_threshold_backward", "grad", at::kFloat, device);
  TORCH_CHECK_VALUE(grad.dim() == 2 && grad.size(0) == args.count && grad.size(1) == args.dim,
                    "soft_threshold_backward: grad has shape ", grad.sizes(), ", expected [", args.count, ", ",
                    args.dim, "]");
}

}  // namespace recsparse
