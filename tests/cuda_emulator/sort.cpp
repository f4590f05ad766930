// csrc/cuda/sort.h on the CPU.
#include "cuda/sort.h"

#include <algorithm>

namespace recsparse::cuda {

int64_t sort_workspace_bytes(int64_t) { return 64; }

const char* sort_keys(const SortArgs& args, void*) {
  const uint64_t mask = args.end_bit >= 64 ? ~0ull : (1ull << args.end_bit) - 1;
  std::copy(args.keys, args.keys + args.count, args.sorted);
  std::stable_sort(args.sorted, args.sorted + args.count,
                   [&](uint64_t a, uint64_t b) { return (a & mask) >> args.begin_bit < (b & mask) >> args.begin_bit; });
  return nullptr;
}

int64_t scan_workspace_bytes(int64_t) { return 64; }

const char* exclusive_scan(const ScanArgs& args, void*) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < args.count; ++i) {
    const uint64_t own = args.in[i];
    args.out[i] = sum;
    sum += own;
  }
  return nullptr;
}

}  // namespace recsparse::cuda
