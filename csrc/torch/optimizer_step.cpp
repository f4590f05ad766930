#include "cpu/optimizer_step.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>

#include "torch/optimizer_call.h"
#include "torch/triples.h"

namespace recsparse {
namespace {

void run(const OptimizerCall& call, const OptimizerOptions& options, bool lazy) {
  OptimizerStepArgs args;
  args.table = check_table(call.op, call.index, call.cols, call.values, call.kind, call.rows, call.dim);
  args.value_type = value_type(call.values);
  args.values = call.values.mutable_data_ptr();
  args.capacity = call.values.numel();
  args.state = nullptr;
  if (call.state) {
    check_state(call.op, call.state_name, *call.state, options.kind, args.capacity, call.rows);
    args.state = call.state->mutable_data_ptr<float>();
  }
  check_options(call.op, options);
  check_step(call.op, call.step);
  const GradientShape shape = check_gradient(call);
  if (call.ids) check_ids(call.op, "ids", *call.ids, call.rows);
  args.form = static_cast<GradientForm>(shape.form);
  args.grad_type = value_type(call.grad);
  args.grad = call.grad.const_data_ptr();
  args.ids = call.ids ? call.ids->const_data_ptr<int64_t>() : nullptr;
  args.count = shape.count;
  args.options = options;
  args.lazy = lazy;
  args.seed = static_cast<uint64_t>(call.seed);
  int64_t* step = call.step.mutable_data_ptr<int64_t>();
  args.step = *step + 1;
  at::Tensor workspace = at::empty({2 * args.count}, call.index.options());
  args.workspace = reinterpret_cast<uint64_t*>(workspace.mutable_data_ptr<int64_t>());
  optimizer_step(args, op_threads());
  ++*step;
  mark_written(call.values);
  mark_written(call.step);
  if (call.state) mark_written(*call.state);
}

void adam_cpu(at::Tensor& values, at::Tensor& moments, at::Tensor& step, const at::Tensor& index,
              const at::Tensor& cols, const at::Tensor& grad, const std::optional<at::Tensor>& ids, int64_t kind,
              int64_t rows, int64_t dim, double lr, double beta1, double beta2, double eps, double weight_decay,
              bool lazy, int64_t seed) {
  run({"adam_", values, &moments, "moments", step, index, cols, grad, ids, kind, rows, dim, seed},
      {Optimizer::adam, lr, beta1, beta2, eps, weight_decay}, lazy);
}

void adagrad_cpu(at::Tensor& values, at::Tensor& sums, at::Tensor& step, const at::Tensor& index,
                 const at::Tensor& cols, const at::Tensor& grad, const std::optional<at::Tensor>& ids, int64_t kind,
                 int64_t rows, int64_t dim, double lr, double eps, double weight_decay, bool lazy, int64_t seed) {
  run({"adagrad_", values, &sums, "sums", step, index, cols, grad, ids, kind, rows, dim, seed},
      {Optimizer::adagrad, lr, 0, 0, eps, weight_decay}, lazy);
}

void rowwise_adagrad_cpu(at::Tensor& values, at::Tensor& sums, at::Tensor& step, const at::Tensor& index,
                         const at::Tensor& cols, const at::Tensor& grad, const std::optional<at::Tensor>& ids,
                         int64_t kind, int64_t rows, int64_t dim, double lr, double eps, double weight_decay, bool lazy,
                         int64_t seed) {
  run({"rowwise_adagrad_", values, &sums, "sums", step, index, cols, grad, ids, kind, rows, dim, seed},
      {Optimizer::rowwise_adagrad, lr, 0, 0, eps, weight_decay}, lazy);
}

void sgd_cpu(at::Tensor& values, at::Tensor& step, const at::Tensor& index, const at::Tensor& cols,
             const at::Tensor& grad, const std::optional<at::Tensor>& ids, int64_t kind, int64_t rows, int64_t dim,
             double lr, double weight_decay, bool lazy, int64_t seed) {
  run({"sgd_", values, nullptr, "", step, index, cols, grad, ids, kind, rows, dim, seed},
      {Optimizer::sgd, lr, 0, 0, 0, weight_decay}, lazy);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "adam_(Tensor(a!) values, Tensor(b!) moments, Tensor(c!) step, Tensor index, Tensor cols, Tensor grad, Tensor? "
      "ids, int kind, int rows, int dim, float lr, float beta1, float beta2, float eps, float weight_decay, bool lazy, "
      "int seed) -> ()");
  m.def(
      "adagrad_(Tensor(a!) values, Tensor(b!) sums, Tensor(c!) step, Tensor index, Tensor cols, Tensor grad, Tensor? "
      "ids, int kind, int rows, int dim, float lr, float eps, float weight_decay, bool lazy, int seed) -> ()");
  m.def(
      "rowwise_adagrad_(Tensor(a!) values, Tensor(b!) sums, Tensor(c!) step, Tensor index, Tensor cols, Tensor grad, "
      "Tensor? ids, int kind, int rows, int dim, float lr, float eps, float weight_decay, bool lazy, int seed) -> ()");
  m.def(
      "sgd_(Tensor(a!) values, Tensor(b!) step, Tensor index, Tensor cols, Tensor grad, Tensor? ids, int kind, int "
      "rows, int dim, float lr, float weight_decay, bool lazy, int seed) -> ()");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("adam_", adam_cpu);
  m.impl("adagrad_", adagrad_cpu);
  m.impl("rowwise_adagrad_", rowwise_adagrad_cpu);
  m.impl("sgd_", sgd_cpu);
}

}  // namespace recsparse
