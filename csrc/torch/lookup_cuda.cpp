#include <torch/library.h>

#include "cuda/lookup.h"
#include "torch/bounds.h"
#include "torch/cuda_call.h"
#include "torch/sort_keys.h"

namespace recsparse {
namespace {

at::Tensor& lookup_out_cuda(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                            const at::Tensor& ids, int64_t kind, int64_t rows, int64_t dim, int64_t bounds,
                            int64_t padding, at::Tensor& out) {
  const CudaCall call("lookup", values);
  const TableView table = check_table("lookup", index, cols, values, kind, rows, dim, call.device());
  check_vector(ids, "lookup", "ids", at::kLong, call.device());
  check_bounds_mode("lookup", bounds);
  check_padding("lookup", padding, rows);
  check_tensor(out, "lookup", "out", values.scalar_type(), call.device());
  TORCH_CHECK_VALUE(out.dim() == 2 && out.size(0) == ids.numel() && out.size(1) == dim, "lookup: out has shape ",
                    out.sizes(), ", expected [", ids.numel(), ", ", dim, "]");
  TORCH_CHECK_INDEX(rows > 0 || ids.numel() == 0, "lookup: ids given for a table without rows");
  const cuda::LookupArgs args{table,
                              value_type(values),
                              values.const_data_ptr(),
                              ids.const_data_ptr<int64_t>(),
                              ids.numel(),
                              out.mutable_data_ptr(),
                              call.site(cuda::Fault::lookup_ids, rows, ids.numel(), bounds)};
  call.check(cuda::lookup(args, call.stream()));
  call.finish();
  return out;
}

at::Tensor lookup_cuda(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values, const at::Tensor& ids,
                       int64_t kind, int64_t rows, int64_t dim, int64_t bounds, int64_t padding) {
  at::Tensor out = at::empty({ids.numel(), dim}, values.options());
  lookup_out_cuda(index, cols, values, ids, kind, rows, dim, bounds, padding, out);
  return out;
}

at::Tensor lookup_backward_cuda(const at::Tensor& grad, const at::Tensor& index, const at::Tensor& cols,
                                const at::Tensor& ids, int64_t kind, int64_t rows, int64_t dim, int64_t padding,
                                int64_t capacity) {
  const CudaCall call("lookup_backward", grad);
  TORCH_CHECK_TYPE(is_value_type(grad.scalar_type()), "lookup_backward: grad has dtype ", grad.scalar_type(),
                   ", expected Float, Half or BFloat16");
  const TableView table = check_index("lookup_backward", index, cols, capacity, kind, rows, dim, call.device());
  check_vector(ids, "lookup_backward", "ids", at::kLong, call.device());
  const at::Tensor rows_of_grad = grad.contiguous();
  TORCH_CHECK_VALUE(grad.dim() == 2 && grad.size(0) == ids.numel() && grad.size(1) == dim,
                    "lookup_backward: grad has shape ", grad.sizes(), ", expected [", ids.numel(), ", ", dim, "]");
  check_sort_keys("lookup_backward", rows + 1, ids.numel());
  check_padding("lookup_backward", padding, rows);
  at::Tensor out = at::empty({capacity}, grad.options());
  cuda::LookupBackwardArgs args{table,
                                value_type(grad),
                                rows_of_grad.const_data_ptr(),
                                ids.const_data_ptr<int64_t>(),
                                ids.numel(),
                                out.mutable_data_ptr(),
                                capacity,
                                padding,
                                nullptr};
  at::Tensor workspace = call.workspace(cuda::lookup_backward_workspace_bytes(args));
  args.workspace = workspace.mutable_data_ptr();
  call.check(cuda::lookup_backward(args, call.stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("lookup", lookup_cuda);
  m.impl("lookup.out", lookup_out_cuda);
  m.impl("lookup_backward", lookup_backward_cuda);
}

}  // namespace recsparse
