#include <torch/library.h>

#include <cstring>

#include "cuda/inspect.h"
#include "torch/cuda_call.h"

namespace recsparse {
namespace {

at::Tensor row_counts_cuda(const at::Tensor& index, const at::Tensor& cols, int64_t capacity, int64_t kind,
                           int64_t rows, int64_t dim) {
  const CudaCall call("row_counts", index);
  const TableView table = check_index("row_counts", index, cols, capacity, kind, rows, dim, call.device());
  at::Tensor counts = at::empty({rows}, index.options());
  call.check(cuda::row_counts(table, counts.mutable_data_ptr<int64_t>(), call.stream()));
  return counts;
}

at::Tensor column_mask_cuda(const at::Tensor& index, const at::Tensor& cols, int64_t capacity, int64_t kind,
                            int64_t rows, int64_t dim, int64_t column) {
  const CudaCall call("column_mask", index);
  const TableView table = check_index("column_mask", index, cols, capacity, kind, rows, dim, call.device());
  TORCH_CHECK_INDEX(column >= 0 && column < dim, "column_mask: column is ", column, ", expected 0..", dim - 1);
  at::Tensor kept = at::empty({rows}, index.options().dtype(at::kBool));
  call.check(cuda::column_mask(table, static_cast<int>(column),
                               reinterpret_cast<uint8_t*>(kept.mutable_data_ptr<bool>()), call.stream()));
  return kept;
}

std::string check_index_cuda(const at::Tensor& index, const at::Tensor& cols, int64_t capacity, int64_t kind,
                             int64_t rows, int64_t dim) {
  const CudaCall call("check_index", index);
  const TableView table = check_index("check_index", index, cols, capacity, kind, rows, dim, call.device());
  if (table.layout.kind == IndexKind::full || rows == 0) return "";
  at::Tensor result = call.workspace(sizeof(cuda::IndexFaults));
  call.check(
      cuda::check_index(table, capacity, static_cast<cuda::IndexFaults*>(result.mutable_data_ptr()), call.stream()));
  const at::Tensor copy = result.cpu();
  cuda::IndexFaults faults;
  std::memcpy(&faults, copy.const_data_ptr(), sizeof(faults));
  const std::string width = std::to_string(dim);
  if (faults.length != ~0ull) return "row " + std::to_string(faults.length) + " keeps columns beyond dim = " + width;
  if (faults.start == 0) return "index block 0 does not start at 0";
  if (faults.start != ~0ull) {
    return "index block " + std::to_string(faults.start) + " does not start where the one before it ends";
  }
  if (faults.kept > static_cast<uint64_t>(capacity)) {
    return std::to_string(faults.kept) + " weights are kept, more than capacity " + std::to_string(capacity);
  }
  if (faults.column != ~0ull) {
    return "the columns of row " + std::to_string(faults.column) + " do not ascend within 0.." + width;
  }
  return "";
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("row_counts", row_counts_cuda);
  m.impl("column_mask", column_mask_cuda);
  m.impl("check_index", check_index_cuda);
}

}  // namespace recsparse
