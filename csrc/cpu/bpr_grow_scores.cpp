#include "cpu/bpr_grow_scores.h"

#include <vector>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/row_sort.h"

namespace recsparse {

using BprGrowKernels = BprGrowKernel[kValueTypes];
RS_CPU_VARIANTS(BprGrowKernels, bpr_grow_kernels);

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

  std::vector<GrowCandidates> parts(threads, GrowCandidates(args.limit, dim));
  parallel_region(threads, [&](int rank) {
    const int64_t end = row_boundary(keys, total, shift, total * (rank + 1) / threads);
    GrowCandidates& mine = parts[rank];
    GrowCandidate found[kMaxDim];
    for (int64_t k = row_boundary(keys, total, shift, total * rank / threads); k < end;) {
      int64_t next = k + 1;
      while (next < end && keys[next] >> shift == keys[k] >> shift) ++next;
      mine.offer(found, kernel.row(args, keys, shift, k, next, mine.floor(), found));
      k = next;
    }
  });
  for (int rank = 1; rank < threads; ++rank) parts[0].merge(parts[rank]);
  return parts[0].take(args.keys, args.scores);
}

}  // namespace recsparse
