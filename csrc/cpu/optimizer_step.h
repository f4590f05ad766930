// adam_, adagrad_, rowwise_adagrad_, sgd_: one step of an optimiser on the kept weights of a packed table.
//
// The gradient comes in one of three forms:
//   packed  [capacity], in the order of the values
//   dense   [rows, dim], of which the kept columns are read
//   rows    [count, dim] with the rows' ids; duplicates are summed in ascending position
// Rows that a gradient of the form `rows` does not name are left alone (lazy) or see a gradient of 0.
#pragma once

#include <cstdint>

#include "core/row_layout.h"
#include "cpu/optimizer.h"

namespace recsparse {

enum class GradientForm { packed, dense, rows };

struct OptimizerStepArgs {
  TableView table;
  float* values;
  float* state;  // see state_floats; null where there is none
  int64_t capacity;
  GradientForm form;
  const float* grad;
  const int64_t* ids;  // [count]; valid, see find_bad_id
  int64_t count;
  OptimizerOptions options;
  bool lazy;
  int64_t step;         // number of this step, from 1
  uint64_t* workspace;  // 2 * count words
};

// The bits do not depend on `threads`.
void optimizer_step(const OptimizerStepArgs& args, int threads);

// ---- between the driver and the kernels --------------------------------------------------------------------------

// A row to be updated; `gradient` is in packed order.
struct RowUpdate {
  int64_t row;
  uint64_t start;
  uint32_t count;
  const float* gradient;
};

constexpr int kUpdateRows = 32;  // rows collected before they are updated

struct OptimizerStepKernel {
  // Rows [begin, end) of the table, of whose sorted keys (row << shift | position) `keys` is the first; or, lazy, the rows
  // of the keys [begin, end).
  void (*full)(const OptimizerStepArgs& args, const uint64_t* keys, const uint64_t* keys_end, int shift, int64_t begin,
               int64_t end);
  void (*lazy)(const OptimizerStepArgs& args, const uint64_t* keys, int shift, bool far, int64_t begin, int64_t end);
};

}  // namespace recsparse
