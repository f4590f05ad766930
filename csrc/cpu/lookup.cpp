#include "cpu/lookup.h"

#include <type_traits>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/prefetch.h"
#include "cpu/row_sort.h"

namespace recsparse {

RS_CPU_VARIANTS(LookupKernel<float>, lookup_kernel);
RS_CPU_VARIANTS(LookupKernel<Half>, lookup_kernel_f16);
RS_CPU_VARIANTS(LookupKernel<BFloat16>, lookup_kernel_bf16);
namespace portable {
extern const LookupKernel<double> lookup_kernel_f64;
}

template <class T>
static const LookupKernel<T>& kernel() {
  if constexpr (std::is_same_v<T, double>) {
    return portable::lookup_kernel_f64;
  } else if constexpr (std::is_same_v<T, Half>) {
    return lookup_kernel_f16();
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return lookup_kernel_bf16();
  } else {
    return lookup_kernel();
  }
}

constexpr int64_t kGrain = 512;                    // ids; below this a second thread costs more than it saves
constexpr int64_t kStreamBytes = 2 * 1024 * 1024;  // outputs larger than a second-level cache are not kept in it

template <class T>
BadIds lookup(const LookupArgs<T>& args, int threads) {
  const int64_t bytes = args.count * args.table.layout.dim * static_cast<int64_t>(sizeof(T));
  const bool aligned = reinterpret_cast<uintptr_t>(args.out) % 64 == 0 && args.table.layout.dim % 16 == 0;
  const bool stream = aligned && bytes >= kStreamBytes;
  const bool far = is_far(args.capacity * static_cast<int64_t>(sizeof(T)) + 8 * index_words(args.table.layout));
  BadIds parts[256];
  if (threads > 256) threads = 256;
  const int64_t chunks = (args.count + kGrain - 1) / kGrain;
  if (chunks < threads) threads = chunks < 1 ? 1 : static_cast<int>(chunks);
  const LookupKernel<T>& variant = kernel<T>();  // throws for a bad RECSPARSE_CPU_ISA: not inside the parallel region
  parallel_region(threads, [&](int rank) {
    const Range range = static_range(args.count, kGrain, rank, threads);
    parts[rank] = variant.forward(args, stream, far, range.begin, range.end);
  });
  BadIds bad;
  for (int rank = 0; rank < threads; ++rank) {
    if (bad.first < 0) bad.first = parts[rank].first;
    bad.count += parts[rank].count;
  }
  return bad;
}

template <class T>
void lookup_backward(const LookupBackwardArgs<T>& args, int threads) {
  const int shift = bits_for(static_cast<uint64_t>(args.count));
  int64_t count = 0;
  for (int64_t i = 0; i < args.count; ++i) {
    if (args.ids[i] == args.padding) continue;
    args.workspace[count++] = static_cast<uint64_t>(args.ids[i]) << shift | static_cast<uint64_t>(i);
  }
  const uint64_t* keys = radix_sort(args.workspace, args.workspace + args.count, count, shift,
                                    bits_for(static_cast<uint64_t>(args.table.layout.rows)));
  const LookupKernel<T>& variant = kernel<T>();
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    begin = row_boundary(keys, count, shift, begin);
    end = row_boundary(keys, count, shift, end);
    if (begin < end) variant.backward(args, keys, shift, begin, end);
  });
}

template BadIds lookup<float>(const LookupArgs<float>&, int);
template BadIds lookup<Half>(const LookupArgs<Half>&, int);
template BadIds lookup<BFloat16>(const LookupArgs<BFloat16>&, int);
template BadIds lookup<double>(const LookupArgs<double>&, int);
template void lookup_backward<float>(const LookupBackwardArgs<float>&, int);
template void lookup_backward<Half>(const LookupBackwardArgs<Half>&, int);
template void lookup_backward<BFloat16>(const LookupBackwardArgs<BFloat16>&, int);
template void lookup_backward<double>(const LookupBackwardArgs<double>&, int);

}  // namespace recsparse
