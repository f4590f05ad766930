// bpr_grow_scores: where would a weight help? |dL/dw| of the slots that are not kept, for a set of triples at the current
// weights, without a dense gradient: each touched row's full-width gradient lives in registers only.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/row_layout.h"
#include "cpu/grow_candidates.h"

namespace recsparse {

struct BprGrowScoresArgs {
  TableView table;
  ValueType value_type;
  const void* values;
  const int64_t* users;
  const int64_t* pos;
  const int64_t* neg;
  int64_t count;
  int64_t item_offset;
  int64_t limit;       // candidates to return at most
  int64_t* keys;       // [limit] row * dim + column, ascending
  float* scores;       // [limit] > 0
  uint64_t* sort;      // workspace, 6 * count words
  float* coefficient;  // workspace, count floats
};

// Number of candidates written: the `limit` largest scores, ties to the lower key.
int64_t bpr_grow_scores(const BprGrowScoresArgs& args, int threads);

struct BprGrowKernel {
  // sigmoid(s_neg - s_pos) / count of the triples [begin, end).
  void (*coefficients)(const BprGrowScoresArgs& args, int64_t begin, int64_t end);
  // Appends the candidates of one row (sorted keys [begin, end)) with a score above `floor`; returns how many (<= dim).
  int (*row)(const BprGrowScoresArgs& args, const uint64_t* keys, int shift, int64_t begin, int64_t end, float floor,
             GrowCandidate* out);
};

}  // namespace recsparse
