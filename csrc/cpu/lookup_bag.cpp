#include "cpu/lookup_bag.h"

#include <algorithm>
#include <type_traits>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/prefetch.h"
#include "cpu/row_sort.h"

namespace recsparse {

RS_CPU_VARIANTS(LookupBagKernel<float>, lookup_bag_kernel);
RS_CPU_VARIANTS(LookupBagKernel<Half>, lookup_bag_kernel_f16);
RS_CPU_VARIANTS(LookupBagKernel<BFloat16>, lookup_bag_kernel_bf16);
namespace portable {
extern const LookupBagKernel<double> lookup_bag_kernel_f64;
}

template <class T>
static const LookupBagKernel<T>& kernel() {
  if constexpr (std::is_same_v<T, double>) {
    return portable::lookup_bag_kernel_f64;
  } else if constexpr (std::is_same_v<T, Half>) {
    return lookup_bag_kernel_f16();
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return lookup_bag_kernel_bf16();
  } else {
    return lookup_bag_kernel();
  }
}

constexpr int64_t kGrain = 512;                    // ids; below this a second thread costs more than it saves
constexpr int64_t kStreamBytes = 2 * 1024 * 1024;  // outputs larger than a second-level cache are not kept in it

// body(begin, end) over the bags, one contiguous part a thread with about as many ids in each.
template <class T, class Body>
static void parallel_bags(const BagIds<T>& bags, int threads, const Body& body) {
  const int64_t work = bags.offsets[bags.bags] + bags.bags;  // an empty bag is work, too
  threads = static_cast<int>(std::clamp<int64_t>(work / kGrain, 1, threads));
  const auto boundary = [&](int rank) {
    const int64_t target = work * rank / threads;
    int64_t low = 0, high = bags.bags;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      bags.offsets[middle] + middle < target ? low = middle + 1 : high = middle;
    }
    return low;
  };
  parallel_region(threads, [&](int rank) {
    const int64_t begin = boundary(rank), end = rank + 1 == threads ? bags.bags : boundary(rank + 1);
    if (begin < end) body(begin, end);
  });
}

template <class T>
static bool is_far_table(const BagIds<T>& bags, int64_t capacity) {
  return is_far(capacity * static_cast<int64_t>(sizeof(T)) + 8 * index_words(bags.table.layout));
}

template <class T>
void lookup_bag(const LookupBagArgs<T>& args, int threads) {
  const int dim = args.bags.table.layout.dim;
  const bool aligned = reinterpret_cast<uintptr_t>(args.out) % 64 == 0 && dim % 16 == 0;
  const bool stream = aligned && args.bags.bags * dim * static_cast<int64_t>(sizeof(T)) >= kStreamBytes;
  const bool far = is_far_table(args.bags, args.capacity);
  const LookupBagKernel<T>& variant =
      kernel<T>();  // throws for a bad RECSPARSE_CPU_ISA: not inside the parallel region
  parallel_bags(args.bags, threads,
                [&](int64_t begin, int64_t end) { variant.forward(args, stream, far, begin, end); });
}

template <class T>
void lookup_bag_weights_backward(const LookupBagWeightsBackwardArgs<T>& args, int threads) {
  const bool far = is_far_table(args.bags, args.capacity);
  const LookupBagKernel<T>& variant = kernel<T>();
  parallel_bags(args.bags, threads,
                [&](int64_t begin, int64_t end) { variant.weights_backward(args, far, begin, end); });
}

template <class T>
void lookup_bag_backward(const LookupBagBackwardArgs<T>& args, int threads) {
  const BagIds<T>& bags = args.bags;
  const int shift = bits_for(static_cast<uint64_t>(bags.count));
  uint64_t* unsorted = reinterpret_cast<uint64_t*>(args.workspace);
  int64_t* bag_of = args.workspace + 2 * bags.count;
  int64_t count = 0;
  for (int64_t bag = 0; bag < bags.bags; ++bag) {
    const int64_t before = count;
    for (int64_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i) {
      const uint64_t id = static_cast<uint64_t>(bags.ids[i]);
      const uint64_t row = id < static_cast<uint64_t>(bags.table.layout.rows) ? id : 0;
      bag_of[i] = bag;
      if (static_cast<int64_t>(row) != bags.padding) unsorted[count++] = row << shift | static_cast<uint64_t>(i);
    }
    if (!args.scales) continue;
    using Scale = ArithmeticType<T>;
    const Scale divisor = bags.mean && count > before ? static_cast<Scale>(count - before) : Scale(1);
    for (int64_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i) {
      args.scales[i] = (bags.weights ? widen(bags.weights[i]) : Scale(1)) / divisor;
    }
  }
  const uint64_t* keys = radix_sort(unsorted, unsorted + bags.count, count, shift,
                                    bits_for(static_cast<uint64_t>(bags.table.layout.rows)));
  const BagGradients<T> from{keys, shift, bag_of, args.scales};
  const LookupBagKernel<T>& variant = kernel<T>();
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    begin = row_boundary(keys, count, shift, begin);
    end = row_boundary(keys, count, shift, end);
    if (begin < end) variant.backward(args, from, begin, end);
  });
}

template void lookup_bag<float>(const LookupBagArgs<float>&, int);
template void lookup_bag<Half>(const LookupBagArgs<Half>&, int);
template void lookup_bag<BFloat16>(const LookupBagArgs<BFloat16>&, int);
template void lookup_bag<double>(const LookupBagArgs<double>&, int);
template void lookup_bag_backward<float>(const LookupBagBackwardArgs<float>&, int);
template void lookup_bag_backward<Half>(const LookupBagBackwardArgs<Half>&, int);
template void lookup_bag_backward<BFloat16>(const LookupBagBackwardArgs<BFloat16>&, int);
template void lookup_bag_backward<double>(const LookupBagBackwardArgs<double>&, int);
template void lookup_bag_weights_backward<float>(const LookupBagWeightsBackwardArgs<float>&, int);
template void lookup_bag_weights_backward<Half>(const LookupBagWeightsBackwardArgs<Half>&, int);
template void lookup_bag_weights_backward<BFloat16>(const LookupBagWeightsBackwardArgs<BFloat16>&, int);
template void lookup_bag_weights_backward<double>(const LookupBagWeightsBackwardArgs<double>&, int);

}  // namespace recsparse
