// The arguments of an optimiser op, and the checks of its gradient, shared by the backends.
#pragma once

#include <optional>

#include "cpu/row_sort.h"
#include "torch/optimizer_args.h"

namespace recsparse {

// The tensors of a call and where its gradient is.
struct OptimizerCall {
  const char* op;
  at::Tensor& values;
  at::Tensor* state;  // null for SGD
  const char* state_name;
  at::Tensor& step;
  const at::Tensor& index;
  const at::Tensor& cols;
  const at::Tensor& grad;
  const std::optional<at::Tensor>& ids;
  int64_t kind, rows, dim, seed;
};

struct GradientShape {
  enum Form { packed, dense, rows } form;  // see cpu/optimizer_step.h
  int64_t count;                           // of ids
};

// The ids themselves are not looked at.
inline GradientShape check_gradient(const OptimizerCall& call, c10::Device device = at::kCPU) {
  const char* op = call.op;
  const at::ScalarType dtype = call.grad.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == call.values.scalar_type(), op, ": grad has dtype ", dtype,
                   ", expected Float", call.values.scalar_type() == at::kFloat ? "" : " or that of values");
  check_tensor(call.grad, op, "grad", dtype, device);
  const at::IntArrayRef shape = call.grad.sizes();
  if (call.ids) {
    check_vector(*call.ids, op, "ids", at::kLong, device);
    const int64_t count = call.ids->numel();
    TORCH_CHECK_VALUE(shape.size() == 2 && shape[0] == count && shape[1] == call.dim, op, ": grad has shape ", shape,
                      ", expected [", count, ", ", call.dim, "], a row for each of ids");
    TORCH_CHECK_VALUE(count < 1ll << 31 && bits_for(call.rows) + bits_for(count) <= 64, op, ": ", count,
                      " ids are too many for a table of ", call.rows, " rows");
    return {GradientShape::rows, count};
  }
  if (shape.size() == 2) {
    TORCH_CHECK_VALUE(shape[0] == call.rows && shape[1] == call.dim, op, ": grad has shape ", shape, ", expected [",
                      call.rows, ", ", call.dim, "], a dense gradient; or give ids");
    return {GradientShape::dense, 0};
  }
  TORCH_CHECK_VALUE(shape.size() == 1 && shape[0] == call.values.numel(), op, ": grad has shape ", shape,
                    ", expected [", call.values.numel(), "], the order of values");
  return {GradientShape::packed, 0};
}

}  // namespace recsparse
