// lightgcn_step: exact mini-batch steps of LightGCN over a packed table of layer-0 rows, with BPR and any optimiser; and
// lightgcn_grow_scores, the gradient of the slots that are not kept.
//
// With S = D^-1/2, A' = S A S and g the gradient of the mean of the layers, Horner's rule gives both directions:
//   mean of layers = (e + A'(e + A'(e + ..))) / (K + 1)      gradient of e = g + A'(g + A'(g + ..)), g divided by K + 1
// so that neither keeps more than two dense [nodes, dim] arrays (`hidden`), whatever K. Both are held scaled by S, which
// leaves additions alone in the inner loop. Only the rows of the mini-batch are needed of the last layer, and only they
// have a g: the outermost product of each direction touches no other edge. The last product of the backward is compressed
// to the kept columns row by row and goes straight to the optimiser: no dense gradient of the table exists.
#pragma once

#include <cstdint>

#include "core/graph.h"
#include "core/half.h"
#include "core/optimizer.h"
#include "core/rounding.h"
#include "core/row_layout.h"
#include "cpu/grow_candidates.h"
#include "cpu/spmm.h"

namespace recsparse {

struct LightgcnArgs {
  TableView table;
  ValueType value_type;
  void* values;  // [capacity]; not written by lightgcn_grow_scores
  float* state;  // see state_floats; null where there is none
  int64_t capacity;
  GraphView<int32_t> graph;
  int layers;             // K >= 1
  ValueType hidden_type;  // float32 or bfloat16
  void* hidden[2];        // [nodes, dim] each
  const int64_t* users;
  const int64_t* pos;
  const int64_t* neg;
  int64_t count;       // triples
  int64_t batch_size;  // triples a mini-batch
  int64_t item_offset;
  float l2;
  OptimizerOptions optimizer;  // full: every kept weight moves in each step
  int64_t step;                // mini-batches done before this call
  uint64_t seed;               // of the stochastic rounding
  float* loss;                 // [ceil(count / batch_size)], the softplus part
  void* workspace;
};

// Bytes of `workspace`.
int64_t lightgcn_workspace_bytes(const LightgcnArgs& args);

void lightgcn_step(const LightgcnArgs& args, int threads);

// All triples as one mini-batch, nothing updated: the `limit` largest |dL/dw| of slots that are not kept, by ascending key.
int64_t lightgcn_grow_scores(const LightgcnArgs& args, int64_t limit, int64_t* keys, float* scores, int threads);

// ---- for the kernels -------------------------------------------------------------------------------------------------

constexpr int64_t kLightgcnTriples = 64;  // triples whose losses are added up together

// A mini-batch: its distinct rows are numbered by ascending id, and `out` and `gradient` have a row for each.
struct LightgcnBatch {
  const LightgcnArgs* args;
  const int64_t* users;
  const int64_t* pos;
  const int64_t* neg;
  int64_t count;
  int64_t step;  // number of this mini-batch, from 1
  float inverse_count;
  RoundingStep rounding;
  bool far;              // see is_far
  const uint64_t* keys;  // slot << shift | occurrence, sorted
  int shift;
  const int64_t* first;  // [distinct + 1] position of a distinct row's first key
  int64_t distinct;
  const int32_t* number;   // [nodes] number of a row of the batch; the rest is unspecified
  const uint64_t* member;  // bit per node: in the batch
  int64_t stride;          // floats from row to row of out and gradient, a multiple of 16
  float* out;
  float* gradient;
  float* coefficient;  // [count] dL/d(s_neg - s_pos)
  double* chunk_loss;  // [ceil(count / kLightgcnTriples)]
};

// One product with A'.
struct LightgcnLayer {
  const void* from;  // hidden, or null: the gradient of the batch's rows
  void* to;          // hidden
  const void* base;  // hidden that holds the scaled layer-0 rows, or null: they are unpacked
  GrowCandidates* grow;
};

// What is done with the sum over the neighbours of a node.
struct LightgcnSink {
  void (*rows)(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t begin, int64_t end);  // slots
  void (*join)(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t slot, const float* sums, int64_t count);
};

struct LightgcnHidden {  // for one type of hidden rows
  void (*segment)(const LightgcnBatch& batch, const LightgcnLayer& layer, const Segment& segment, float* sum);
  LightgcnSink backward;
  // By value type.
  void (*unpack[kValueTypes])(const LightgcnBatch& batch, void* to, int64_t begin, int64_t end);  // nodes
  LightgcnSink forward[kValueTypes];
  void (*forward_batch[kValueTypes])(const LightgcnBatch& batch, const void* from, int64_t begin, int64_t end);
  LightgcnSink update[kValueTypes];
  LightgcnSink grow[kValueTypes];
};

struct LightgcnKernel {
  void (*score)(const LightgcnBatch& batch, int64_t begin, int64_t end);          // triples; begin starts a chunk
  void (*row_gradients)(const LightgcnBatch& batch, int64_t begin, int64_t end);  // distinct rows
  LightgcnHidden f32, bf16;
};

}  // namespace recsparse
