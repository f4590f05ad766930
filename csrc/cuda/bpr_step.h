// bpr_step_ on the GPU; see cpu/bpr_step.h for the loss and the exact mini-batch semantics. Pointers are to device memory,
// `stream` is a cudaStream_t on the current device.
//
// A call sorts the occurrences of all its mini-batches at once, because their order does not depend on the weights, and then
// makes three launches a mini-batch: score (per triple; writes a record an occurrence, already times its coefficient),
// update (per distinct row with up to kLongRun occurrences) and update by whole blocks (popular rows). The step counter
// stays on the device. A bad id anywhere in the call leaves everything unchanged, and the losses are NaN.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/optimizer.h"
#include "core/row_layout.h"
#include "cuda/bpr_triples.h"

namespace recsparse::cuda {

struct BprStepArgs {
  TableView table;
  ValueType value_type;
  void* values;  // [capacity]
  float* state;  // see state_floats; null where there is none
  BprTriples triples;
  int64_t batch_size;  // triples a mini-batch
  float l2;
  OptimizerOptions optimizer;
  int64_t* step;  // [1], mini-batches done before; advanced
  uint64_t seed;  // of the stochastic rounding
  float* loss;    // [ceil(count / batch_size)], the softplus part
  void* workspace;
};

int64_t bpr_step_workspace_bytes(const BprStepArgs& args);
const char* bpr_step(const BprStepArgs& args, void* stream);

}  // namespace recsparse::cuda
