#include <torch/library.h>

#include <optional>

#include "cpu/row_sort.h"
#include "cuda/optimizer_step.h"
#include "torch/cuda_call.h"
#include "torch/optimizer_call.h"

namespace recsparse {
namespace {

void run(const OptimizerCall& given, const OptimizerOptions& options, bool lazy, cuda::Fault fault) {
  const char* op = given.op;
  const CudaCall call(op, given.values);
  cuda::OptimizerStepArgs args;
  args.table = check_table(op, given.index, given.cols, given.values, given.kind, given.rows, given.dim, call.device());
  args.value_type = value_type(given.values);
  args.values = given.values.mutable_data_ptr();
  args.state = nullptr;
  if (given.state) {
    check_state(op, given.state_name, *given.state, options.kind, given.values.numel(), given.rows, call.device());
    args.state = given.state->mutable_data_ptr<float>();
  }
  check_options(op, options);
  check_step(op, given.step, call.device());
  const GradientShape shape = check_gradient(given, call.device());
  args.form = static_cast<cuda::GradientForm>(shape.form);
  args.grad_type = value_type(given.grad);
  args.grad = given.grad.const_data_ptr();
  args.ids = given.ids ? given.ids->const_data_ptr<int64_t>() : nullptr;
  args.count = shape.count;
  args.options = options;
  args.lazy = lazy;
  args.step = given.step.mutable_data_ptr<int64_t>();
  args.seed = static_cast<uint64_t>(given.seed);
  args.bad_ids = call.site(fault, given.rows, args.count, 0);
  args.workspace = nullptr;
  at::Tensor workspace = call.workspace(cuda::optimizer_step_workspace_bytes(args));
  args.workspace = workspace.mutable_data_ptr();
  call.check(cuda::optimizer_step(args, call.stream()));
  call.finish();
  mark_written(given.values);
  mark_written(given.step);
  if (given.state) mark_written(*given.state);
}

void adam_cuda(at::Tensor& values, at::Tensor& moments, at::Tensor& step, const at::Tensor& index,
               const at::Tensor& cols, const at::Tensor& grad, const std::optional<at::Tensor>& ids, int64_t kind,
               int64_t rows, int64_t dim, double lr, double beta1, double beta2, double eps, double weight_decay,
               bool lazy, int64_t seed) {
  run({"adam_", values, &moments, "moments", step, index, cols, grad, ids, kind, rows, dim, seed},
      {Optimizer::adam, lr, beta1, beta2, eps, weight_decay}, lazy, cuda::Fault::adam_ids);
}

void adagrad_cuda(at::Tensor& values, at::Tensor& sums, at::Tensor& step, const at::Tensor& index,
                  const at::Tensor& cols, const at::Tensor& grad, const std::optional<at::Tensor>& ids, int64_t kind,
                  int64_t rows, int64_t dim, double lr, double eps, double weight_decay, bool lazy, int64_t seed) {
  run({"adagrad_", values, &sums, "sums", step, index, cols, grad, ids, kind, rows, dim, seed},
      {Optimizer::adagrad, lr, 0, 0, eps, weight_decay}, lazy, cuda::Fault::adagrad_ids);
}

void rowwise_adagrad_cuda(at::Tensor& values, at::Tensor& sums, at::Tensor& step, const at::Tensor& index,
                          const at::Tensor& cols, const at::Tensor& grad, const std::optional<at::Tensor>& ids,
                          int64_t kind, int64_t rows, int64_t dim, double lr, double eps, double weight_decay,
                          bool lazy, int64_t seed) {
  run({"rowwise_adagrad_", values, &sums, "sums", step, index, cols, grad, ids, kind, rows, dim, seed},
      {Optimizer::rowwise_adagrad, lr, 0, 0, eps, weight_decay}, lazy, cuda::Fault::rowwise_adagrad_ids);
}

void sgd_cuda(at::Tensor& values, at::Tensor& step, const at::Tensor& index, const at::Tensor& cols,
              const at::Tensor& grad, const std::optional<at::Tensor>& ids, int64_t kind, int64_t rows, int64_t dim,
              double lr, double weight_decay, bool lazy, int64_t seed) {
  run({"sgd_", values, nullptr, "", step, index, cols, grad, ids, kind, rows, dim, seed},
      {Optimizer::sgd, lr, 0, 0, 0, weight_decay}, lazy, cuda::Fault::sgd_ids);
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("adam_", adam_cuda);
  m.impl("adagrad_", adagrad_cuda);
  m.impl("rowwise_adagrad_", rowwise_adagrad_cuda);
  m.impl("sgd_", sgd_cuda);
}

}  // namespace recsparse
