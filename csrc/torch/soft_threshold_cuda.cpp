#include <torch/library.h>

#include <optional>

#include "cuda/soft_threshold.h"
#include "torch/cuda_call.h"
#include "torch/soft_threshold_args.h"

namespace recsparse {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

void check_some_row(const char* op, const SoftThresholdArgs& args) {
  TORCH_CHECK_INDEX(args.rows > 0 || args.count == 0, op, ": ids given for a table without rows");
}

at::Tensor soft_threshold_cuda(const at::Tensor& values, const at::Tensor& thresholds, const OptionalTensor& ids) {
  const CudaCall call("soft_threshold", values);
  SoftThresholdArgs args = check_soft_threshold("soft_threshold", values, thresholds, ids, call.device());
  check_some_row("soft_threshold", args);
  at::Tensor out = at::empty({args.count, args.dim}, values.options());
  args.out = out.mutable_data_ptr<float>();
  const cuda::ErrorSite bad_ids = call.site(cuda::Fault::soft_threshold_ids, args.rows, args.count, 0);
  call.check(cuda::soft_threshold(args, bad_ids, call.stream()));
  call.finish();
  return out;
}

std::tuple<at::Tensor, at::Tensor> soft_threshold_backward_cuda(const at::Tensor& grad, const at::Tensor& values,
                                                                const at::Tensor& thresholds,
                                                                const OptionalTensor& ids) {
  const char* op = "soft_threshold_backward";
  const CudaCall call(op, values);
  const SoftThresholdArgs forward = check_soft_threshold(op, values, thresholds, ids, call.device());
  check_some_row(op, forward);
  const at::Tensor whole = grad.contiguous();
  check_threshold_grad(whole, forward, call.device());
  at::Tensor of_values = at::empty({forward.count, forward.dim}, values.options());
  at::Tensor of_thresholds = at::empty(threshold_grad_shape(forward), values.options());
  const int64_t partials = forward.thresholds.by_row ? 0 : cuda::soft_threshold_partials(forward.count);
  at::Tensor partial = at::empty({partials, forward.dim}, values.options());
  const cuda::ErrorSite bad_ids = call.site(cuda::Fault::soft_threshold_backward_ids, forward.rows, forward.count, 0);
  call.check(cuda::soft_threshold_backward(
      SoftThresholdBackwardArgs{forward, whole.const_data_ptr<float>(), of_values.mutable_data_ptr<float>(),
                                of_thresholds.mutable_data_ptr<float>(), partial.mutable_data_ptr<float>()},
      bad_ids, call.stream()));
  call.finish();
  return {of_values, of_thresholds};
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("soft_threshold", soft_threshold_cuda);
  m.impl("soft_threshold_backward", soft_threshold_backward_cuda);
}

}  // namespace recsparse
