#include "cpu/bpr_grow_scores.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/row_sort.h"

namespace recsparse {

using BprGrowKernels = BprGrowKernel[kValueTypes];
RS_CPU_VARIANTS(BprGrowKernels, bpr_grow_kernels);

// A total order, so that the best `limit` are the same set however the rows were shared out.
static bool better(const GrowCandidate& a, const GrowCandidate& b) {
  return a.score != b.score ? a.score > b.score : a.key < b.key;
}

// Keeps the `limit` best and returns the score that a newcomer must at least have.
static float keep_best(std::vector<GrowCandidate>& candidates, int64_t limit) {
  if (static_cast<int64_t>(candidates.size()) <= limit) return 0.0f;
  std::nth_element(candidates.begin(), candidates.begin() + limit, candidates.end(), better);
  candidates.resize(limit);
  float floor = candidates[0].score;
  for (const GrowCandidate& candidate : candidates) floor = std::min(floor, candidate.score);
  return floor;
}

int64_t bpr_grow_scores(const BprGrowScoresArgs& args, int threads) {
  if (args.count == 0 || args.limit <= 0) return 0;
  const BprGrowKernel& kernel = bpr_grow_kernels()[static_cast<int>(args.value_type)];
  const int dim = args.table.layout.dim;
  const int64_t total = 3 * args.count;
  const int shift = bits_for(static_cast<uint64_t>(total));
  for (int64_t t = 0; t < args.count; ++t) {
    const uint64_t occurrence = static_cast<uint64_t>(3 * t);
    args.sort[3 * t] = static_cast<uint64_t>(args.users[t]) << shift | occurrence;
    args.sort[3 * t + 1] = static_cast<uint64_t>(args.item_offset + args.pos[t]) << shift | (occurrence + 1);
    args.sort[3 * t + 2] = static_cast<uint64_t>(args.item_offset + args.neg[t]) << shift | (occurrence + 2);
  }
  const uint64_t* keys =
      radix_sort(args.sort, args.sort + total, total, shift, bits_for(static_cast<uint64_t>(args.table.layout.rows)));
  parallel_for(args.count, 256, threads, [&](int64_t begin, int64_t end) { kernel.coefficients(args, begin, end); });

  std::vector<std::vector<GrowCandidate>> parts(threads);
  parallel_region(threads, [&](int rank) {
    const int64_t end = row_boundary(keys, total, shift, total * (rank + 1) / threads);
    std::vector<GrowCandidate>& mine = parts[rank];
    const int64_t room = args.limit + std::max<int64_t>(args.limit / 2, 64 * dim);
    float floor = 0.0f;
    GrowCandidate found[kMaxDim];
    for (int64_t k = row_boundary(keys, total, shift, total * rank / threads); k < end;) {
      int64_t next = k + 1;
      while (next < end && keys[next] >> shift == keys[k] >> shift) ++next;
      // Scores equal to the floor may still win by their key, so only what is strictly below is turned away.
      const float below = floor > 0 ? std::nextafter(floor, 0.0f) : 0.0f;
      const int count = kernel.row(args, keys, shift, k, next, below, found);
      mine.insert(mine.end(), found, found + count);
      if (static_cast<int64_t>(mine.size()) + dim > room) floor = keep_best(mine, args.limit);
      k = next;
    }
  });
  std::vector<GrowCandidate>& all = parts[0];
  for (int rank = 1; rank < threads; ++rank) all.insert(all.end(), parts[rank].begin(), parts[rank].end());
  keep_best(all, args.limit);
  std::sort(all.begin(), all.end(), [](const GrowCandidate& a, const GrowCandidate& b) { return a.key < b.key; });
  for (size_t i = 0; i < all.size(); ++i) {
    args.keys[i] = all[i].key;
    args.scores[i] = all[i].score;
  }
  return static_cast<int64_t>(all.size());
}

}  // namespace recsparse
