// bpr_grow_scores on the GPU; see cpu/bpr_grow_scores.h. Pointers are to device memory.
//
// Unlike on the CPU the gradients of the triples are written out, dim floats an occurrence, and so are the scores of the
// distinct rows: 24 dim bytes a triple of workspace, 460 MB for 300,000 triples of 64 columns. It runs once a mask update.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/row_layout.h"
#include "cuda/bpr_triples.h"

namespace recsparse::cuda {

struct BprGrowScoresArgs {
  TableView table;
  ValueType value_type;
  const void* values;
  BprTriples triples;
  int64_t limit;   // candidates to return at most
  int64_t* keys;   // [limit] row * dim + column, ascending
  float* scores;   // [limit] > 0
  int64_t* found;  // [1] candidates written
  void* workspace;
};

int64_t bpr_grow_scores_workspace_bytes(const BprGrowScoresArgs& args);
const char* bpr_grow_scores(const BprGrowScoresArgs& args, void* stream);

}  // namespace recsparse::cuda
