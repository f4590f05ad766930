#include <torch/library.h>

#include <tuple>

#include "cuda/select.h"
#include "torch/cuda_call.h"

namespace recsparse {
namespace {

std::tuple<at::Tensor, at::Tensor> select_cuda(const at::Tensor& values, int64_t k) {
  const CudaCall call("select", values);
  check_values("select", values, call.device());
  const int64_t n = values.numel();
  TORCH_CHECK_VALUE(0 <= k && k <= n, "select: k = ", k, ", expected 0 <= k <= ", n, " (the number of values)");
  at::Tensor threshold = at::empty({}, values.options());
  at::Tensor ties = at::empty({}, values.options().dtype(at::kLong));
  at::Tensor workspace = call.workspace(cuda::select_values_workspace_bytes());
  const cuda::SelectValuesArgs args{value_type(values),
                                    values.const_data_ptr(),
                                    n,
                                    k,
                                    threshold.mutable_data_ptr(),
                                    ties.mutable_data_ptr<int64_t>(),
                                    call.site(cuda::Fault::select_nan, 0, n, 0),
                                    workspace.mutable_data_ptr()};
  call.check(cuda::select_values(args, call.stream()));
  call.finish();
  return {threshold, ties};
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) { m.impl("select", select_cuda); }

}  // namespace recsparse
