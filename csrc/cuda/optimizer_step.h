// adam_, adagrad_, rowwise_adagrad_, sgd_ on the GPU; see cpu/optimizer_step.h for the forms of the gradient and what lazy
// means. Pointers are to device memory, `stream` is a cudaStream_t on the current device.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/optimizer.h"
#include "core/row_layout.h"
#include "cuda/errors.h"

namespace recsparse::cuda {

enum class GradientForm { packed, dense, rows };

struct OptimizerStepArgs {
  TableView table;
  ValueType value_type;
  void* values;  // [capacity]
  float* state;  // see state_floats; null where there is none
  GradientForm form;
  ValueType grad_type;
  const void* grad;
  const int64_t* ids;  // [count]; a bad one leaves everything unchanged
  int64_t count;
  OptimizerOptions options;
  bool lazy;
  int64_t* step;  // [1], steps done before; advanced
  uint64_t seed;  // of the stochastic rounding
  ErrorSite bad_ids;
  void* workspace;
};

int64_t optimizer_step_workspace_bytes(const OptimizerStepArgs& args);
const char* optimizer_step(const OptimizerStepArgs& args, void* stream);

}  // namespace recsparse::cuda
