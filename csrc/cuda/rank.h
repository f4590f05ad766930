// rank on the GPU: for each user the k items of highest score (dot product of two float rows), items already seen left out, equal
// scores by lower item. No score matrix exists. Pointers are to device memory, `stream` is a cudaStream_t on the current
// device.
//
// The score of a pair is a chain of fused multiply-adds in ascending order of columns, whatever else is ranked in the call,
// and lists are ordered by exact keys: the same bits in every run. Rows of a packed table are unpacked into the workspace,
// those of the items 64 MiB at a time.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/row_layout.h"
#include "cuda/errors.h"

namespace recsparse::cuda {

// Rows 0 .. count - 1, from a dense array or from a packed table.
struct RankRows {
  int64_t count;
  const float* dense;  // [count, dim], or null
  TableView table;     // for dense null: row i is row ids[i] of the table, or row first + i without ids
  ValueType type;
  const void* values;
  const int64_t* ids;
  int64_t first;
  ErrorSite bad_rows;  // NaN, infinity, or a norm above kRankLargestNorm
};

struct RankArgs {
  RankRows users, items;  // fewer than 2^31 items
  int dim;
  const int64_t* seen_indptr;  // [users + 1]
  const int32_t* seen_items;   // [seen], ascending in each row
  int64_t seen;
  int64_t k;
  int32_t* out_items;  // [users, k], best first, -1 where a user has fewer unseen items
  float* out_scores;   // [users, k], -infinity at the padding
  ErrorSite bad_ids, bad_seen;
  void* workspace;
};

int64_t rank_workspace_bytes(const RankArgs& args);
const char* rank(const RankArgs& args, void* stream);

}  // namespace recsparse::cuda
