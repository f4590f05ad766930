// Ranking metrics of every user; recsparse/metrics.py has the definitions.
#pragma once

#include <cstdint>

namespace recsparse::host {

constexpr int kMetrics = 5;  // recall, ndcg, precision, hit, mrr: in this order

struct MetricsArgs {
  const int32_t* ranking;  // [users, width], best first, -1 where a row ends early
  int64_t users;
  int64_t width;
  const int64_t* indptr;  // [users + 1]
  const int32_t* items;   // wanted, ascending in each row
  const int64_t* ks;      // [cuts], each in 1 .. width
  int64_t cuts;
  double* out;  // [users, cuts, kMetrics]
};

void ranking_metrics(const MetricsArgs& args);

}  // namespace recsparse::host
