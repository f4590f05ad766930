#include "cpu/inspect.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "torch/check.h"

namespace recsparse {
namespace {

at::Tensor row_counts_cpu(const at::Tensor& index, const at::Tensor& cols, int64_t capacity, int64_t kind, int64_t rows,
                          int64_t dim) {
  const TableView table = check_index("row_counts", index, cols, capacity, kind, rows, dim);
  at::Tensor counts = at::empty({rows}, index.options());
  row_counts(table, counts.mutable_data_ptr<int64_t>(), op_threads());
  return counts;
}

at::Tensor column_mask_cpu(const at::Tensor& index, const at::Tensor& cols, int64_t capacity, int64_t kind,
                           int64_t rows, int64_t dim, int64_t column) {
  const TableView table = check_index("column_mask", index, cols, capacity, kind, rows, dim);
  TORCH_CHECK_INDEX(column >= 0 && column < dim, "column_mask: column is ", column, ", expected 0..", dim - 1);
  at::Tensor kept = at::empty({rows}, index.options().dtype(at::kBool));
  column_mask(table, static_cast<int>(column), reinterpret_cast<uint8_t*>(kept.mutable_data_ptr<bool>()), op_threads());
  return kept;
}

std::string check_index_cpu(const at::Tensor& index, const at::Tensor& cols, int64_t capacity, int64_t kind,
                            int64_t rows, int64_t dim) {
  return check_index(check_index("check_index", index, cols, capacity, kind, rows, dim), capacity, op_threads());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def("row_counts(Tensor index, Tensor cols, int capacity, int kind, int rows, int dim) -> Tensor");
  m.def("column_mask(Tensor index, Tensor cols, int capacity, int kind, int rows, int dim, int column) -> Tensor");
  m.def("check_index(Tensor index, Tensor cols, int capacity, int kind, int rows, int dim) -> str");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("row_counts", row_counts_cpu);
  m.impl("column_mask", column_mask_cpu);
  m.impl("check_index", check_index_cpu);
}

}  // namespace recsparse
