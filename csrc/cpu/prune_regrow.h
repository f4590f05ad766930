// prune_regrow_: drop the smallest weights of a packed table, grow the best candidates, rebuild the table in place.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/prune_status.h"
#include "core/row_layout.h"

namespace recsparse {

struct PruneRegrowArgs {
  Layout layout;  // kind bits or cols8
  uint64_t* index;
  uint8_t* cols;  // [capacity] for cols8
  ValueType value_type;
  void* values;          // [capacity]
  float* state;          // [state_per_weight * capacity], in the order of the values, or null
  int state_per_weight;  // floats of optimiser state of a weight: 0, 1 or 2
  int64_t capacity;
  const int64_t* keys;  // [candidates] row * dim + column, ascending, of slots that are not kept
  const float* scores;  // [candidates]
  int64_t candidates;
  int64_t drop, grow;
};

// Changes nothing unless it returns ok. The bits do not depend on `threads`.
PruneRegrowResult prune_regrow(const PruneRegrowArgs& args, int threads);

// Which of a run of keys are chosen: above the threshold, and the first `ties` that are equal to it.
struct Choice {
  uint32_t threshold;
  int64_t ties;
};

// A run of whole index blocks, rebuilt on its own.
struct Slab {
  int64_t first_row, rows;
  int64_t old_start, old_count;
  int64_t new_start, new_count;
  Choice keep;  // of the slab's weights, by magnitude
  Choice grow;  // of the slab's candidates, by score
  int64_t first_candidate, candidates;
};

// The state of a weight that has two floats of it: they move together.
struct StatePair {
  float first, second;
};

// Where a slab waits between being read and being written. Bit streams are in units of 64-bit words with one spare.
struct SlabScratch {
  uint64_t* keep;      // a bit for each old value: it stays
  uint64_t* survivor;  // a bit for each new value: it is old, not grown
  int64_t* grown;      // chosen keys, then INT64_MAX
  int64_t grown_count;
  void* values;  // survivors only, packed
  float* state;
  uint8_t* cols;
};

// One variant for an instruction set and a size of values: weights are only ever compared by their bits and moved.
struct PruneRegrowKernel {
  // Magnitudes above and equal to the threshold among `size` values of a table from `first` on.
  void (*count)(const void* values, int64_t first, int64_t size, uint32_t threshold, int64_t* above, int64_t* equal);
  // Copies what stays of a slab to `scratch` and writes the slab's new index, which does not move.
  void (*read)(const PruneRegrowArgs& args, const uint32_t* score_keys, const Slab& slab, SlabScratch* scratch);
  // Writes the slab's new values, state and columns.
  void (*write)(const PruneRegrowArgs& args, const Slab& slab, const SlabScratch& scratch);
};

}  // namespace recsparse
