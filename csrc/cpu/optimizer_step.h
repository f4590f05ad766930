// adam_, adagrad_, rowwise_adagrad_, sgd_: one step of an optimiser on the kept weights of a packed table.
//
// The gradient comes in one of three forms:
//   packed  [capacity], in the order of the values
//   dense   [rows, dim], of which the kept columns are read
//   rows    [count, dim] with the rows' ids; duplicates are summed in ascending position
// Rows that a gradient of the form `rows` does not name are left alone (lazy) or see a gradient of 0.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/optimizer.h"
#include "core/rounding.h"
#include "core/row_layout.h"

namespace recsparse {

enum class GradientForm { packed, dense, rows };

struct OptimizerStepArgs {
  TableView table;
  ValueType value_type;
  void* values;  // [capacity]
  float* state;  // see state_floats; null where there is none
  int64_t capacity;
  GradientForm form;
  ValueType grad_type;
  const void* grad;
  const int64_t* ids;  // [count]; valid, see find_bad_id
  int64_t count;
  OptimizerOptions options;
  bool lazy;
  int64_t step;         // number of this step, from 1
  uint64_t seed;        // of the stochastic rounding
  uint64_t* workspace;  // 2 * count words
};

// The bits do not depend on `threads`.
void optimizer_step(const OptimizerStepArgs& args, int threads);

// ---- between the driver and the kernels --------------------------------------------------------------------------

// Sorted keys row << shift | position of the rows that a gradient names.
struct RowKeys {
  const uint64_t* keys;
  int shift;
  int64_t at, end;
};

struct OptimizerStepKernel {
  // Rows [begin, end) of the table; `keys` starts with the first key of these rows, if the gradient has any.
  void (*full)(const OptimizerStepArgs& args, RowKeys keys, int64_t begin, int64_t end);
  // The rows of the keys [keys.at, keys.end). far: see is_far.
  void (*lazy)(const OptimizerStepArgs& args, RowKeys keys, bool far);
};

}  // namespace recsparse
