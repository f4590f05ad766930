#include "cpu/convert_index.h"

#include <torch/library.h>

#include <tuple>

#include "torch/check.h"

namespace recsparse {
namespace {

int64_t misfit_row_cpu(const at::Tensor& index, const at::Tensor& cols, int64_t capacity, int64_t kind, int64_t rows,
                       int64_t dim, int64_t to_kind) {
  const TableView table = check_index("misfit_row", index, cols, capacity, kind, rows, dim);
  const Layout to = check_layout("misfit_row", to_kind, rows, dim);
  return misfit_row(table, to.kind, op_threads());
}

std::tuple<at::Tensor, at::Tensor> convert_index_cpu(const at::Tensor& index, const at::Tensor& cols, int64_t capacity,
                                                     int64_t kind, int64_t rows, int64_t dim, int64_t to_kind) {
  const TableView table = check_index("convert_index", index, cols, capacity, kind, rows, dim);
  const Layout to = check_layout("convert_index", to_kind, rows, dim);
  const int64_t misfit = misfit_row(table, to.kind, op_threads());
  TORCH_CHECK_VALUE(misfit < 0, "convert_index: row ", misfit, " does not keep ",
                    to.kind == IndexKind::full ? "every column" : "a prefix of its columns",
                    "; use kind bits or cols8");
  const bool full = to.kind == IndexKind::full;
  TORCH_CHECK_VALUE(!full || capacity == rows * dim, "convert_index: capacity is ", capacity,
                    ", expected rows * dim = ", rows * dim, " for kind full");
  at::Tensor new_index = empty_huge({index_words(to)}, index.options());
  at::Tensor new_cols = empty_huge({to.kind == IndexKind::cols8 ? capacity : 0}, cols.options()).zero_();
  const ConvertIndexArgs args{table, to, reinterpret_cast<uint64_t*>(new_index.mutable_data_ptr<int64_t>()),
                              new_cols.mutable_data_ptr<uint8_t>()};
  convert_index(args, op_threads());
  return {new_index, new_cols};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def("misfit_row(Tensor index, Tensor cols, int capacity, int kind, int rows, int dim, int to_kind) -> int");
  m.def(
      "convert_index(Tensor index, Tensor cols, int capacity, int kind, int rows, int dim, int to_kind) -> "
      "(Tensor index, Tensor cols)");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("misfit_row", misfit_row_cpu);
  m.impl("convert_index", convert_index_cpu);
}

}  // namespace recsparse
