#include "host/metrics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "host/parallel.h"

namespace recsparse::host {

void ranking_metrics(const MetricsArgs& args) {
  std::vector<double> gain(static_cast<size_t>(args.width));       // of a hit at rank j + 1
  std::vector<double> ideal(static_cast<size_t>(args.width) + 1);  // of hits at ranks 1 .. j
  for (size_t j = 0; j < gain.size(); ++j) {
    gain[j] = 1.0 / std::log2(static_cast<double>(j) + 2.0);
    ideal[j + 1] = ideal[j] + gain[j];
  }
  parallel_rows(args.users, 0, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> hits;  // ranks, from 0
    for (int64_t u = begin; u < end; ++u) {
      const int32_t* first = args.items + args.indptr[u];
      const int32_t* last = args.items + args.indptr[u + 1];
      const int64_t wanted = last - first;
      hits.clear();
      for (int64_t j = 0; j < args.width; ++j) {
        const int32_t item = args.ranking[u * args.width + j];
        if (item >= 0 && std::binary_search(first, last, item)) hits.push_back(j);
      }
      for (int64_t c = 0; c < args.cuts; ++c) {
        const int64_t k = args.ks[c];
        int64_t count = 0;
        double dcg = 0;
        for (const int64_t rank : hits) {
          if (rank >= k) break;
          ++count;
          dcg += gain[static_cast<size_t>(rank)];
        }
        double* out = args.out + (u * args.cuts + c) * kMetrics;
        out[0] = wanted ? static_cast<double>(count) / static_cast<double>(wanted) : 0;
        out[1] = wanted ? dcg / ideal[static_cast<size_t>(std::min(wanted, k))] : 0;
        out[2] = static_cast<double>(count) / static_cast<double>(k);
        out[3] = count > 0;
        out[4] = count > 0 ? 1.0 / static_cast<double>(hits[0] + 1) : 0;
      }
    }
  });
}

}  // namespace recsparse::host
