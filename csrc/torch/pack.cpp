#include "cpu/pack.h"

#include <torch/library.h>

#include <tuple>

#include "torch/check.h"

namespace recsparse {
namespace {

template <class T>
PackResult pack_typed(const Layout& layout, const at::Tensor& dense, const at::Tensor& mask, at::Tensor& index,
                      at::Tensor& cols, at::Tensor& values) {
  const PackArgs<T> args{layout,
                         data_as<T>(dense),
                         reinterpret_cast<const uint8_t*>(mask.const_data_ptr<bool>()),
                         reinterpret_cast<uint64_t*>(index.mutable_data_ptr<int64_t>()),
                         cols.mutable_data_ptr<uint8_t>(),
                         mutable_data_as<T>(values),
                         values.numel()};
  return pack(args, op_threads());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> pack_cpu(const at::Tensor& dense, const at::Tensor& mask, int64_t kind,
                                                        int64_t capacity) {
  const at::ScalarType dtype = check_floating("pack", "dense", dense);
  check_tensor(dense, "pack", "dense", dtype);
  check_tensor(mask, "pack", "mask", at::kBool);
  TORCH_CHECK_VALUE(dense.dim() == 2, "pack: dense has shape ", dense.sizes(), ", expected [rows, dim]");
  TORCH_CHECK_VALUE(mask.sizes() == dense.sizes(), "pack: mask has shape ", mask.sizes(), ", expected ", dense.sizes());
  TORCH_CHECK_VALUE(capacity >= 0, "pack: capacity is ", capacity, ", expected at least 0");
  const Layout layout = check_layout("pack", kind, dense.size(0), dense.size(1));
  at::Tensor index = empty_huge({index_words(layout)}, dense.options().dtype(at::kLong));
  at::Tensor cols =
      empty_huge({layout.kind == IndexKind::cols8 ? capacity : 0}, dense.options().dtype(at::kByte)).zero_();
  at::Tensor values = empty_huge({capacity}, dense.options());
  const PackResult result = with_floating(
      dtype, [&](auto storage) { return pack_typed<decltype(storage)>(layout, dense, mask, index, cols, values); });
  TORCH_CHECK_VALUE(result.status != PackResult::not_full, "pack: row ", result.row,
                    " does not keep every column; use kind bits or cols8");
  TORCH_CHECK_VALUE(result.status != PackResult::not_prefix, "pack: row ", result.row,
                    " does not keep a prefix of its columns; use kind bits or cols8");
  TORCH_CHECK_VALUE(result.status != PackResult::over_capacity, "pack: mask keeps ", result.kept,
                    " weights, more than capacity ", capacity);
  return {index, cols, values};
}

std::tuple<at::Tensor, at::Tensor> unpack_cpu(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                                              int64_t kind, int64_t rows, int64_t dim) {
  const at::ScalarType dtype = check_floating("unpack", "values", values);
  check_vector(values, "unpack", "values", dtype);
  const TableView table = check_index("unpack", index, cols, values.numel(), kind, rows, dim);
  at::Tensor dense = at::empty({rows, dim}, values.options());
  at::Tensor mask = at::empty({rows, dim}, values.options().dtype(at::kBool));
  uint8_t* mask_bytes = reinterpret_cast<uint8_t*>(mask.mutable_data_ptr<bool>());
  with_floating(dtype, [&](auto storage) {
    using T = decltype(storage);
    unpack(table, data_as<T>(values), mutable_data_as<T>(dense), mask_bytes, op_threads());
  });
  return {dense, mask};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def("pack(Tensor dense, Tensor mask, int kind, int capacity) -> (Tensor index, Tensor cols, Tensor values)");
  m.def("unpack(Tensor index, Tensor cols, Tensor values, int kind, int rows, int dim) -> (Tensor dense, Tensor mask)");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("pack", pack_cpu);
  m.impl("unpack", unpack_cpu);
}

}  // namespace recsparse
