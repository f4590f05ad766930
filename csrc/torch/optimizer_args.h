// Checks of an optimiser's hyper-parameters, state and step counter, shared by the ops that update weights.
#pragma once

#include "core/optimizer.h"
#include "torch/check.h"

namespace recsparse {

inline void check_options(const char* op, const OptimizerOptions& options) {
  TORCH_CHECK_VALUE(options.lr >= 0, op, ": lr is ", options.lr, ", expected at least 0");
  TORCH_CHECK_VALUE(options.weight_decay >= 0, op, ": weight_decay is ", options.weight_decay, ", expected at least 0");
  TORCH_CHECK_VALUE(options.kind == Optimizer::sgd || options.eps > 0, op, ": eps is ", options.eps,
                    ", expected above 0");
  const bool betas = options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1;
  TORCH_CHECK_VALUE(options.kind != Optimizer::adam || betas, op, ": betas are ", options.beta1, " and ", options.beta2,
                    ", expected in [0, 1)");
}

// The options of an op that takes any optimiser, by number.
inline OptimizerOptions check_optimizer(const char* op, int64_t optimizer, double lr, double beta1, double beta2,
                                        double eps, double weight_decay) {
  TORCH_CHECK_VALUE(optimizer >= 0 && optimizer < kOptimizers, op, ": optimizer is ", optimizer,
                    ", expected 0 (sgd), 1 (adagrad), 2 (rowwise_adagrad) or 3 (adam)");
  const OptimizerOptions options{static_cast<Optimizer>(optimizer), lr, beta1, beta2, eps, weight_decay};
  check_options(op, options);
  return options;
}

inline void check_state(const char* op, const char* name, const at::Tensor& state, Optimizer kind, int64_t capacity,
                        int64_t rows, c10::Device device = at::kCPU) {
  check_vector(state, op, name, at::kFloat, device);
  const int64_t expected = state_floats(kind, capacity, rows);
  TORCH_CHECK_VALUE(state.numel() == expected, op, ": ", name, " has ", state.numel(), " entries, expected ", expected,
                    kind == Optimizer::adam              ? " = 2 * capacity"
                    : kind == Optimizer::rowwise_adagrad ? " = rows"
                    : kind == Optimizer::adagrad         ? " = capacity"
                                                         : "");
}

inline void check_step(const char* op, const at::Tensor& step, c10::Device device = at::kCPU) {
  check_tensor(step, op, "step", at::kLong, device);
  TORCH_CHECK_VALUE(step.numel() == 1, op, ": step has ", step.numel(), " entries, expected 1");
  if (!device.is_cpu()) return;  // what it counts is known to the device alone
  const int64_t done = *step.const_data_ptr<int64_t>();
  TORCH_CHECK_VALUE(done >= 0, op, ": step is ", done, ", expected at least 0");
}

// Kernels write through raw pointers: let autograd refuse graphs that saved the old contents.
inline void mark_written(const at::Tensor& tensor) {
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

}  // namespace recsparse
