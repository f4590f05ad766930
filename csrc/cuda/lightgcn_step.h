// lightgcn_step_ and lightgcn_grow_scores on the GPU; see cpu/lightgcn_step.h for what they compute and by which rule.
// Pointers are to device memory, `stream` is a cudaStream_t on the current device.
//
// All arrays hold rows scaled by D^-1/2. A mini-batch unpacks layer 0, makes the products of the forward pass (the last one for
// its own rows only), scores, sums the gradient of each of its rows, and makes the products of the backward pass. The last
// of them ends in registers: a row's sum goes to the optimiser at its kept columns, and no gradient of the table is
// stored. A bad id anywhere in the call leaves everything unchanged, and the losses are NaN.
#pragma once

#include <cstdint>

#include "core/graph.h"
#include "core/half.h"
#include "core/optimizer.h"
#include "core/row_layout.h"
#include "cuda/bpr_triples.h"

namespace recsparse::cuda {

struct LightgcnArgs {
  TableView table;
  ValueType value_type;
  void* values;  // [capacity]; not written by lightgcn_grow_scores
  GraphView<int32_t> graph;
  int64_t edges;    // both directions
  int layers;       // K >= 1
  bool half;        // hidden rows are bfloat16, else float
  void* hidden[2];  // [nodes, dim] each; one array will do for one layer
  BprTriples triples;
  int64_t batch_size;  // triples a mini-batch
  void* workspace;
};

struct LightgcnStepArgs {
  LightgcnArgs base;
  float* state;  // see state_floats; null where there is none
  float l2;
  OptimizerOptions optimizer;  // full: every kept weight moves in each step
  int64_t* step;               // [1], mini-batches done before; advanced
  uint64_t seed;               // of the stochastic rounding
  float* loss;                 // [ceil(count / batch_size)], the softplus part
};

int64_t lightgcn_step_workspace_bytes(const LightgcnStepArgs& args);
const char* lightgcn_step(const LightgcnStepArgs& args, void* stream);

// All triples as one mini-batch, nothing updated: the `limit` largest |dL/dw| of slots that are not kept, by ascending key.
struct LightgcnGrowArgs {
  LightgcnArgs base;
  float* slots;  // [nodes, dim] for the scores of all slots; null: the hidden array that is free by then
  int64_t limit;
  int64_t* keys;   // [limit]
  float* scores;   // [limit]
  int64_t* found;  // [1] how many there are
};

int64_t lightgcn_grow_workspace_bytes(const LightgcnGrowArgs& args);
const char* lightgcn_grow_scores(const LightgcnGrowArgs& args, void* stream);

}  // namespace recsparse::cuda
