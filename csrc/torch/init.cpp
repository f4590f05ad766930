#include "cpu/init.h"

#include <torch/library.h>

#include <cmath>

#include "torch/init_args.h"

namespace recsparse {
namespace {

int64_t init_index_cpu(at::Tensor& index, at::Tensor& cols, int64_t kind, int64_t rows, int64_t dim, int64_t start,
                       int64_t kept, int64_t seed) {
  const Layout layout = check_init_index(index, cols, kind, rows, dim, start, kept);
  return init_index(layout, static_cast<InitStart>(start), kept, static_cast<uint64_t>(seed),
                    reinterpret_cast<uint64_t*>(index.mutable_data_ptr<int64_t>()), cols.mutable_data_ptr<uint8_t>(),
                    op_threads());
}

void init_values_cpu(at::Tensor& values, const at::Tensor& index, const at::Tensor& cols, int64_t kind, int64_t rows,
                     int64_t dim, int64_t seed, double std) {
  const TableView table = check_table("init_values_", index, cols, values, kind, rows, dim);
  TORCH_CHECK_VALUE(std::isfinite(std) && std >= 0, "init_values_: std is ", std, ", expected a finite number >= 0");
  with_value_type(values.scalar_type(), [&](auto storage) {
    init_values(table, static_cast<uint64_t>(seed), std, mutable_data_as<decltype(storage)>(values), op_threads());
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "init_index_(Tensor(a!) index, Tensor(b!) cols, int kind, int rows, int dim, int start, int kept, int seed) -> "
      "int");
  m.def(
      "init_values_(Tensor(a!) values, Tensor index, Tensor cols, int kind, int rows, int dim, int seed, float std) -> "
      "()");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("init_index_", init_index_cpu);
  m.impl("init_values_", init_values_cpu);
}

}  // namespace recsparse
