#include <torch/library.h>

#include <optional>

#include "cuda/lookup_bag.h"
#include "torch/bounds.h"
#include "torch/cuda_call.h"
#include "torch/lookup_bag_args.h"
#include "torch/sort_keys.h"

namespace recsparse {
namespace {

// Offsets that end with the number of ids; what they are is looked at by the kernels.
at::Tensor close_offsets(const char* op, const at::Tensor& offsets, int64_t count, bool include_last_offset,
                         c10::Device device) {
  check_vector(offsets, op, "offsets", at::kLong, device);
  const int64_t bags = count_bags(op, offsets, include_last_offset);
  TORCH_CHECK_VALUE(bags > 0 || count == 0, op, ": ", count, " ids, but no bag");
  if (include_last_offset) return offsets;
  at::Tensor closed = at::empty({bags + 1}, offsets.options());
  closed.narrow(0, 0, bags).copy_(offsets);
  closed.narrow(0, bags, 1).fill_(count);
  return closed;
}

// The arguments that the three ops share. `closed` must outlive the result.
cuda::BagIds bag_ids(const CudaCall& call, const TableView& table, ValueType type, const at::Tensor& ids,
                     const at::Tensor& closed, const std::optional<at::Tensor>& weights, int64_t mode, int64_t padding,
                     int64_t bounds) {
  return cuda::BagIds{table,
                      type,
                      ids.const_data_ptr<int64_t>(),
                      ids.numel(),
                      closed.const_data_ptr<int64_t>(),
                      closed.numel() - 1,
                      weights ? weights->const_data_ptr() : nullptr,
                      mode == BagMode::mean,
                      padding,
                      call.site(cuda::Fault::lookup_bag_ids, table.layout.rows, ids.numel(), bounds),
                      call.site(cuda::Fault::lookup_bag_offsets, ids.numel() + 1, closed.numel(), 0)};
}

void check_type(const char* op, const char* name, const at::Tensor& tensor) {
  TORCH_CHECK_TYPE(is_value_type(tensor.scalar_type()), op, ": ", name, " has dtype ", tensor.scalar_type(),
                   ", expected Float, Half or BFloat16");
}

at::Tensor lookup_bag_cuda(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                           const at::Tensor& ids, const at::Tensor& offsets, const std::optional<at::Tensor>& weights,
                           int64_t kind, int64_t rows, int64_t dim, int64_t mode, bool include_last_offset,
                           int64_t padding, int64_t bounds) {
  const char* op = "lookup_bag";
  const CudaCall call(op, values);
  const TableView table = check_table(op, index, cols, values, kind, rows, dim, call.device());
  check_bag_arguments(op, ids, weights, values.scalar_type(), mode, padding, rows, call.device());
  check_bounds_mode(op, bounds);
  const at::Tensor closed = close_offsets(op, offsets, ids.numel(), include_last_offset, call.device());
  TORCH_CHECK_INDEX(rows > 0 || ids.numel() == 0, "lookup_bag: ids given for a table without rows");
  at::Tensor out = at::empty({closed.numel() - 1, dim}, values.options());
  const cuda::LookupBagArgs args{bag_ids(call, table, value_type(values), ids, closed, weights, mode, padding, bounds),
                                 values.const_data_ptr(), out.mutable_data_ptr()};
  call.check(cuda::lookup_bag(args, call.stream()));
  call.finish();
  return out;
}

at::Tensor lookup_bag_backward_cuda(const at::Tensor& grad, const at::Tensor& index, const at::Tensor& cols,
                                    const at::Tensor& ids, const at::Tensor& offsets,
                                    const std::optional<at::Tensor>& weights, int64_t kind, int64_t rows, int64_t dim,
                                    int64_t mode, bool include_last_offset, int64_t padding, int64_t capacity) {
  const char* op = "lookup_bag_backward";
  const CudaCall call(op, grad);
  check_type(op, "grad", grad);
  const TableView table = check_index(op, index, cols, capacity, kind, rows, dim, call.device());
  check_bag_arguments(op, ids, weights, grad.scalar_type(), mode, padding, rows, call.device());
  const at::Tensor closed = close_offsets(op, offsets, ids.numel(), include_last_offset, call.device());
  check_bag_grad(op, grad, closed.numel() - 1, dim);
  check_sort_keys(op, rows + 1, ids.numel());
  const at::Tensor bag_grads = grad.contiguous();
  at::Tensor out = at::empty({capacity}, grad.options());
  cuda::LookupBagBackwardArgs args{
      bag_ids(call, table, value_type(grad), ids, closed, weights, mode, padding, Bounds::ignore),
      bag_grads.const_data_ptr(), out.mutable_data_ptr(), capacity, nullptr};
  at::Tensor workspace = call.workspace(cuda::lookup_bag_backward_workspace_bytes(args));
  args.workspace = workspace.mutable_data_ptr();
  call.check(cuda::lookup_bag_backward(args, call.stream()));
  call.finish();
  return out;
}

at::Tensor lookup_bag_weights_backward_cuda(const at::Tensor& grad, const at::Tensor& index, const at::Tensor& cols,
                                            const at::Tensor& values, const at::Tensor& ids, const at::Tensor& offsets,
                                            int64_t kind, int64_t rows, int64_t dim, bool include_last_offset,
                                            int64_t padding) {
  const char* op = "lookup_bag_weights_backward";
  const CudaCall call(op, grad);
  check_type(op, "grad", grad);
  check_vector(values, op, "values", grad.scalar_type(), call.device());
  const TableView table = check_index(op, index, cols, values.numel(), kind, rows, dim, call.device());
  check_bag_arguments(op, ids, std::nullopt, grad.scalar_type(), BagMode::sum, padding, rows, call.device());
  const at::Tensor closed = close_offsets(op, offsets, ids.numel(), include_last_offset, call.device());
  check_bag_grad(op, grad, closed.numel() - 1, dim);
  const at::Tensor bag_grads = grad.contiguous();
  at::Tensor out = at::empty({ids.numel()}, grad.options());
  const cuda::LookupBagWeightsBackwardArgs args{
      bag_ids(call, table, value_type(grad), ids, closed, std::nullopt, BagMode::sum, padding, Bounds::ignore),
      values.const_data_ptr(), bag_grads.const_data_ptr(), out.mutable_data_ptr()};
  call.check(cuda::lookup_bag_weights_backward(args, call.stream()));
  call.finish();
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("lookup_bag", lookup_bag_cuda);
  m.impl("lookup_bag_backward", lookup_bag_backward_cuda);
  m.impl("lookup_bag_weights_backward", lookup_bag_weights_backward_cuda);
}

}  // namespace recsparse
