// Checks that every op makes on its arguments, and the view that kernels get. One clear line for each mistake.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include "core/half.h"
#include "core/row_layout.h"

namespace recsparse {

// Large tables are touched at random: without huge pages most of the time goes to page walks. A hint, never an error.
void advise_huge_pages(const at::Tensor& tensor);

// An uninitialised tensor on huge pages, where its size allows: advice must come before the pages are touched.
inline at::Tensor empty_huge(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor tensor = at::empty(sizes, options);
  advise_huge_pages(tensor);
  return tensor;
}

inline int op_threads() { return at::get_num_threads(); }

// The checks below ask for tensors of one device: the CPU, or the one that a CUDA binding names.
inline void check_tensor(const at::Tensor& tensor, const char* op, const char* name, at::ScalarType dtype,
                         c10::Device device = at::kCPU) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, op, ": ", name, " has dtype ", tensor.scalar_type(), ", expected ",
                   dtype);
  TORCH_CHECK_VALUE(device.is_cpu() ? tensor.device().is_cpu() : tensor.device() == device, op, ": ", name, " is on ",
                    tensor.device(), ", expected ", device.is_cpu() ? c10::Device(at::kCPU) : device);
  TORCH_CHECK_VALUE(tensor.is_contiguous(), op, ": ", name, " is not contiguous; call .contiguous() on it");
}

inline void check_vector(const at::Tensor& tensor, const char* op, const char* name, at::ScalarType dtype,
                         c10::Device device = at::kCPU) {
  check_tensor(tensor, op, name, dtype, device);
  TORCH_CHECK_VALUE(tensor.dim() == 1, op, ": ", name, " has shape ", tensor.sizes(), ", expected one dimension");
}

inline Layout check_layout(const char* op, int64_t kind, int64_t rows, int64_t dim) {
  TORCH_CHECK_VALUE(kind >= 0 && kind <= 3, op, ": index kind ", kind, " is not one of 0 (full) .. 3 (cols8)");
  TORCH_CHECK_VALUE(dim >= 1 && dim <= kMaxDim, op, ": dim is ", dim, ", expected 1..", kMaxDim);
  TORCH_CHECK_VALUE(rows >= 0 && rows < (1ll << 40), op, ": rows is ", rows, ", expected 0..2^40");
  return Layout{static_cast<IndexKind>(kind), static_cast<int32_t>(dim), rows};
}

// A row that gets no gradient, or -1.
inline void check_padding(const char* op, int64_t padding, int64_t rows) {
  TORCH_CHECK_VALUE(padding >= -1 && padding < rows, op, ": padding row is ", padding, ", expected -1 (none) or 0..",
                    rows - 1);
}

inline TableView check_index(const char* op, const at::Tensor& index, const at::Tensor& cols, int64_t capacity,
                             int64_t kind, int64_t rows, int64_t dim, c10::Device device = at::kCPU) {
  const Layout layout = check_layout(op, kind, rows, dim);
  check_vector(index, op, "index", at::kLong, device);
  check_vector(cols, op, "cols", at::kByte, device);
  TORCH_CHECK_VALUE(index.numel() == index_words(layout), op, ": index has ", index.numel(), " words, expected ",
                    index_words(layout), " for ", rows, " rows of dim ", dim);
  const int64_t expected_cols = layout.kind == IndexKind::cols8 ? capacity : 0;
  TORCH_CHECK_VALUE(cols.numel() == expected_cols, op, ": cols has ", cols.numel(), " entries, expected ",
                    expected_cols);
  TORCH_CHECK_VALUE(layout.kind != IndexKind::full || capacity == rows * dim, op, ": values has ", capacity,
                    " entries, expected rows * dim = ", rows * dim, " for kind full");
  return TableView{layout, reinterpret_cast<const uint64_t*>(index.const_data_ptr<int64_t>()),
                   cols.const_data_ptr<uint8_t>()};
}

inline bool is_value_type(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16;
}

inline ValueType value_type(const at::Tensor& values) {
  switch (values.scalar_type()) {
    case at::kHalf: return ValueType::float16;
    case at::kBFloat16: return ValueType::bfloat16;
    default: return ValueType::float32;
  }
}

// Values of a type that tables are trained in.
inline void check_values(const char* op, const at::Tensor& values, c10::Device device = at::kCPU) {
  TORCH_CHECK_TYPE(is_value_type(values.scalar_type()), op, ": values has dtype ", values.scalar_type(),
                   ", expected Float, Half or BFloat16");
  check_vector(values, op, "values", values.scalar_type(), device);
}

inline TableView check_table(const char* op, const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                             int64_t kind, int64_t rows, int64_t dim, c10::Device device = at::kCPU) {
  check_values(op, values, device);
  return check_index(op, index, cols, values.numel(), kind, rows, dim, device);
}

// A value type or double, for the ops that have a portable double build (gradient checks).
inline at::ScalarType check_floating(const char* op, const char* name, const at::Tensor& tensor) {
  const at::ScalarType dtype = tensor.scalar_type();
  TORCH_CHECK_TYPE(is_value_type(dtype) || dtype == at::kDouble, op, ": ", name, " has dtype ", dtype,
                   ", expected Float, Half, BFloat16 or Double");
  return dtype;
}

// Calls op(T{}) with the storage type T of a dtype that `check_values` let pass.
template <class Op>
inline auto with_value_type(at::ScalarType dtype, Op&& op) {
  switch (dtype) {
    case at::kHalf: return op(Half{});
    case at::kBFloat16: return op(BFloat16{});
    default: return op(float{});
  }
}

// The same for `check_floating`.
template <class Op>
inline auto with_floating(at::ScalarType dtype, Op&& op) {
  return dtype == at::kDouble ? op(double{}) : with_value_type(dtype, op);
}

// The data of a tensor as T, which may be one of our own 16-bit types.
template <class T>
inline const T* data_as(const at::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <class T>
inline T* mutable_data_as(at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace recsparse
