// bpr_step_: mini-batches of Bayesian personalised ranking with a lazy optimiser, straight on packed rows.
//
// Loss of a mini-batch of B triples (u, i, j), s = e_u . e_x:
//   1/B sum softplus(s_uj - s_ui) + l2 / (2 B) sum (|e_u|^2 + |e_i|^2 + |e_j|^2)
// Exact mini-batch semantics: all gradients are taken at the weights before the batch, duplicates of a row are summed in
// ascending position, then each distinct row is updated once.
//
// Two passes over a batch, with a barrier after each:
//   1. per triple: decode the three rows, score, and write three *records* of what the update will need: e_j - e_i on
//      the user's kept columns, -e_u on the positive's, e_u on the negative's, and the coefficient.
//   2. per distinct row, in sorted order: sum the records' vectors x coefficient, add the regulariser, apply the optimiser.
// Pass 2 reads no other row's weights, so no dense row and no gradient tensor exists anywhere, and no third pass does.
// Values of 16 bits are computed with as floats and written back with stochastic rounding; records and state are floats.
// A record is one cache line for rows of up to 12 kept weights: what one core wrote and another reads is the cost here.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/optimizer.h"
#include "core/rounding.h"
#include "core/row_layout.h"

namespace recsparse {

struct BprStepArgs {
  TableView table;
  ValueType value_type;
  void* values;  // [capacity]
  float* state;  // see state_floats; null where there is none
  const int64_t* users;
  const int64_t* pos;
  const int64_t* neg;
  int64_t count;       // triples
  int64_t batch_size;  // triples a mini-batch
  int64_t capacity;    // length of values
  int64_t item_offset;
  float l2;
  OptimizerOptions optimizer;
  int64_t step;   // mini-batches done before this call
  uint64_t seed;  // of the stochastic rounding
  float* loss;    // [ceil(count / batch_size)], the softplus part
  void* workspace;
};

int64_t bpr_step_workspace_bytes(const BprStepArgs& args, int threads);

// Ids must be valid (see find_bad_id). At least 2 threads pay off from about 128 triples a batch.
void bpr_step(const BprStepArgs& args, int threads);

// Position of the first id outside [0, limit), or -1.
int64_t find_bad_id(const int64_t* ids, int64_t count, int64_t limit, int threads);

// ---- between the driver and the kernels --------------------------------------------------------------------------

constexpr int kBprChunk = 64;  // triples; the unit of work, and of the partial sums of the loss

// What pass 2 needs to know of one occurrence of a row. `record_bytes` is a multiple of a cache line, chosen from the
// mean number of kept weights; a row that does not fit has its vector in the chunk's spill area, and data[0] says where.
struct BprRecord {
  uint64_t start;
  uint32_t count;
  float coefficient;  // sigmoid(s_neg - s_pos) / B
  float data[1];      // record_bytes / 4 - 4 floats
};

struct BprBatch {  // one mini-batch
  const BprStepArgs* args;
  const int64_t* users;  // of this batch
  const int64_t* pos;
  const int64_t* neg;
  int64_t count;
  int64_t step;  // number of its update, from 1
  RoundingStep rounding;
  float inverse_count;  // 1 / B
  bool far;             // see is_far
  char* records;        // occurrence 3 * triple + role (user, positive, negative)
  int64_t record_bytes;
  float* spill;  // chunk c owns [c * spill_stride, (c + 1) * spill_stride)
  int64_t spill_stride;
  double* chunk_loss;    // [chunks]
  const uint64_t* keys;  // [3 * count], sorted: row << shift | occurrence
  int shift;

  BprRecord* record(uint64_t occurrence) const {
    return reinterpret_cast<BprRecord*>(records + static_cast<int64_t>(occurrence) * record_bytes);
  }
};

struct BprKernel {
  // Triples of the sorted keys [begin, end), which are their users'; begin is a multiple of kBprChunk.
  void (*score)(const BprBatch& batch, int64_t begin, int64_t end);
  // Rows of the sorted keys [begin, end), cut at row boundaries.
  void (*update)(const BprBatch& batch, int64_t begin, int64_t end);
};

}  // namespace recsparse
