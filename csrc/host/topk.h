// Exact top-K of every row of a score matrix, items already seen excluded.
#pragma once

#include <cstdint>

namespace recsparse::host {

struct TopkArgs {
  const float* scores;  // [rows, n_items], row stride `row_stride` elements
  int64_t rows;
  int64_t n_items;
  int64_t row_stride;
  const int64_t* seen_indptr;  // [rows + 1]
  const int32_t* seen_items;   // ascending in each row
  int k;
  int threads;         // 0: one a processor
  int32_t* out_items;  // [rows, k], best first, -1 where a row has fewer than k unseen items
  float* out_scores;   // [rows, k], -inf at the padding
};

// Order: higher score first, equal scores by lower item id. Returns the first row that holds a NaN, or -1.
int64_t topk_rows(const TopkArgs& args);

}  // namespace recsparse::host
