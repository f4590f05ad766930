#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>

#include "cuda/convert_index.h"
#include "torch/cuda_call.h"

namespace recsparse {
namespace {

// The first row of a table that `args.to` cannot hold, or -1. Waits for the device.
int64_t count_misfits(const CudaCall& call, cuda::ConvertIndexArgs& args, at::Tensor& workspace,
                      const at::Tensor& like) {
  at::Tensor result = at::empty({2}, like.options());
  workspace = call.workspace(cuda::convert_index_workspace_bytes(args.to));
  args.result = reinterpret_cast<uint64_t*>(result.mutable_data_ptr<int64_t>());
  args.workspace = workspace.mutable_data_ptr();
  call.check(cuda::convert_index_count(args, call.stream()));
  return result.cpu().const_data_ptr<int64_t>()[1];
}

int64_t misfit_row_cuda(const at::Tensor& index, const at::Tensor& cols, int64_t capacity, int64_t kind, int64_t rows,
                        int64_t dim, int64_t to_kind) {
  const CudaCall call("misfit_row", index);
  const TableView table = check_index("misfit_row", index, cols, capacity, kind, rows, dim, call.device());
  cuda::ConvertIndexArgs args{table,  check_layout("misfit_row", to_kind, rows, dim), nullptr, nullptr, nullptr,
                              nullptr};
  at::Tensor workspace;
  return count_misfits(call, args, workspace, index);
}

std::tuple<at::Tensor, at::Tensor> convert_index_cuda(const at::Tensor& index, const at::Tensor& cols, int64_t capacity,
                                                      int64_t kind, int64_t rows, int64_t dim, int64_t to_kind) {
  const CudaCall call("convert_index", index);
  const TableView table = check_index("convert_index", index, cols, capacity, kind, rows, dim, call.device());
  const Layout to = check_layout("convert_index", to_kind, rows, dim);
  cuda::ConvertIndexArgs args{table, to, nullptr, nullptr, nullptr, nullptr};
  at::Tensor workspace;
  const int64_t misfit = count_misfits(call, args, workspace, index);
  TORCH_CHECK_VALUE(misfit < 0, "convert_index: row ", misfit, " does not keep ",
                    to.kind == IndexKind::full ? "every column" : "a prefix of its columns",
                    "; use kind bits or cols8");
  TORCH_CHECK_VALUE(to.kind != IndexKind::full || capacity == rows * dim, "convert_index: capacity is ", capacity,
                    ", expected rows * dim = ", rows * dim, " for kind full");
  at::Tensor new_index = at::empty({index_words(to)}, index.options());
  at::Tensor new_cols = at::zeros({to.kind == IndexKind::cols8 ? capacity : 0}, cols.options());
  args.index = reinterpret_cast<uint64_t*>(new_index.mutable_data_ptr<int64_t>());
  args.cols = new_cols.mutable_data_ptr<uint8_t>();
  call.check(cuda::convert_index_write(args, call.stream()));
  return {new_index, new_cols};
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("misfit_row", misfit_row_cuda);
  m.impl("convert_index", convert_index_cuda);
}

}  // namespace recsparse
