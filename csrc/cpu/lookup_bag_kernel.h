// lookup_bag for one instruction set; see lookup_bag.h. Include after an isa_*.h.
//
// The sum of a bag stays in registers: nothing of size [ids, dim] exists, and a bag of n rows writes one. A missing weight
// is a factor of 1, which leaves a fused multiply-add the same bits as an addition.
#pragma once

#include <type_traits>

#include "cpu/lookup_bag.h"
#include "cpu/row_walk.h"

namespace recsparse::RS_ISA {

template <int W>
constexpr int kMaxChunks = W ? 2 * W : kMaxDim / 16;

RS_INLINE uint32_t chunk_lanes(int dim, int c) { return static_cast<uint32_t>(low_bits(dim - 16 * c) & 0xffff); }

template <class T, IndexKind K, int W>
static void lookup_bags(const LookupBagArgs<T>& args, bool streaming, bool far, int64_t begin, int64_t end) {
  const BagIds<T>& bags = args.bags;
  const int dim = bags.table.layout.dim, chunks = chunk_count<W>(dim);
  RowWalk<T, K, W> walk(bags.table, args.values, bags.ids, bags.offsets[begin], bags.offsets[end]);
  Lanes<T> sums[kMaxChunks<W>];
  for (int64_t bag = begin; bag < end; ++bag) {
    for (int c = 0; c < chunks; ++c) sums[c] = Lanes<T>(0);
    int64_t counted = 0;
    for (int64_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i) {
      const RowRef<W> ref = walk.next();
      if (walk.row(i) == bags.padding) continue;
      ++counted;
      const Lanes<T> weight(bags.weights ? recsparse::widen(bags.weights[i]) : 1);
      for_each_chunk<K>(args.values + ref.start, ref, chunks, far,
                        [&](int c, Lanes<T> chunk) { sums[c] = fma(chunk, weight, sums[c]); });
    }
    T* out = args.out + bag * dim;
    const Lanes<T> divisor(static_cast<ArithmeticType<T>>(counted));
    for (int c = 0; c < chunks; ++c) {
      if (bags.mean && counted > 1) sums[c] = sums[c] / divisor;
      if (streaming) {
        stream(out + 16 * c, sums[c]);
      } else {
        store(out + 16 * c, sums[c], chunk_lanes(dim, c));
      }
    }
  }
  if (streaming) stream_fence();
}

template <class T, IndexKind K, int W>
static void lookup_bag_weights_backward_bags(const LookupBagWeightsBackwardArgs<T>& args, bool far, int64_t begin,
                                             int64_t end) {
  const BagIds<T>& bags = args.bags;
  const int dim = bags.table.layout.dim, chunks = chunk_count<W>(dim);
  RowWalk<T, K, W> walk(bags.table, args.values, bags.ids, bags.offsets[begin], bags.offsets[end]);
  Lanes<T> grad[kMaxChunks<W>];
  for (int64_t bag = begin; bag < end; ++bag) {
    for (int c = 0; c < chunks; ++c) grad[c] = load(args.grad + bag * dim + 16 * c, chunk_lanes(dim, c));
    for (int64_t i = bags.offsets[bag]; i < bags.offsets[bag + 1]; ++i) {
      const RowRef<W> ref = walk.next();
      if (walk.row(i) == bags.padding) continue;
      Lanes<T> sum(0);
      for_each_chunk<K>(args.values + ref.start, ref, chunks, far,
                        [&](int c, Lanes<T> chunk) { sum = fma(chunk, grad[c], sum); });
      args.grad_weights[i] = recsparse::narrow(T{}, reduce_add(sum));
    }
  }
}

template <class T, IndexKind K>
static void lookup_bag_backward_rows(const LookupBagBackwardArgs<T>& args, const BagGradients<T>& from, int64_t begin,
                                     int64_t end) {
  const TableView& table = args.bags.table;
  const int dim = table.layout.dim, chunks = chunk_count<0>(dim);
  const uint64_t* keys = from.keys;
  const uint64_t position = low_bits(from.shift);
  const auto row_of = [&](int64_t i) { return static_cast<int64_t>(keys[i] >> from.shift); };
  const auto grad_of = [&](int64_t i) { return args.grad + from.bag_of[keys[i] & position] * dim; };
  // Far ahead the index line and the number of the bag, nearer the gradient and the values' place.
  int64_t ahead = begin, near = begin;
  const auto fetch = [&](int64_t i) {
    for (; ahead < end && ahead < i + 2 * kWalkAhead; ++ahead) {
      if (K != IndexKind::full) prefetch(index_line<K, 0>(table, row_of(ahead)));
      prefetch(from.bag_of + (keys[ahead] & position));
    }
    for (; near < end && near < i + kWalkAhead; ++near) {
      prefetch_span(grad_of(near), static_cast<uint32_t>(dim));
      if (near > begin && row_of(near) == row_of(near - 1)) continue;
      const RowRef<0> ref = locate<K, 0, Rank>(table, row_of(near));
      prefetch_span<true>(args.grad_values + ref.start, ref.count);
      if (K == IndexKind::cols8) prefetch_span(table.cols + ref.start, ref.count);
    }
  };
  for (int64_t i = begin; i < end;) {
    fetch(i);
    int64_t next = i + 1;
    while (next < end && row_of(next) == row_of(i)) ++next;
    RowRef<0> ref = locate<K, 0, Rank>(table, row_of(i));
    complete<K, 0>(table, ref);
    T* out = args.grad_values + ref.start;
    for (int c = 0; c < chunks; ++c) {
      const uint32_t lanes = chunk_lanes(dim, c), mask = chunk_mask(ref, c);
      Lanes<T> sum(0);
      for (int64_t k = i; k < next; ++k) {
        const Lanes<T> scale(from.scales ? from.scales[keys[k] & position] : 1);
        sum = fma(load(grad_of(k) + 16 * c, lanes), scale, sum);
      }
      const int kept = popcount64(mask);
      store(out, compress(sum, mask), static_cast<uint32_t>(low_bits(kept)));
      out += kept;
    }
    i = next;
  }
}

// Calls run(kind, width) with the kind and the width of a table as types.
template <IndexKind K, class Run>
static void with_width(const Layout& layout, const Run& run) {
  const std::integral_constant<IndexKind, K> kind;
  switch (mask_words(layout.dim)) {
    case 2: return run(kind, std::integral_constant<int, 2>());
    case 4: return run(kind, std::integral_constant<int, 4>());
    default: return run(kind, std::integral_constant<int, 0>());
  }
}
template <class Run>
static void with_kind_and_width(const Layout& layout, const Run& run) {
  switch (layout.kind) {
    case IndexKind::full: return with_width<IndexKind::full>(layout, run);
    case IndexKind::prefix: return with_width<IndexKind::prefix>(layout, run);
    case IndexKind::bits: return with_width<IndexKind::bits>(layout, run);
    default: return with_width<IndexKind::cols8>(layout, run);
  }
}

template <class T>
static void lookup_bag_forward(const LookupBagArgs<T>& args, bool streaming, bool far, int64_t begin, int64_t end) {
  with_kind_and_width(args.bags.table.layout, [&](auto kind, auto width) {
    lookup_bags<T, decltype(kind)::value, decltype(width)::value>(args, streaming, far, begin, end);
  });
}

template <class T>
static void lookup_bag_weights_backward_kind(const LookupBagWeightsBackwardArgs<T>& args, bool far, int64_t begin,
                                             int64_t end) {
  with_kind_and_width(args.bags.table.layout, [&](auto kind, auto width) {
    lookup_bag_weights_backward_bags<T, decltype(kind)::value, decltype(width)::value>(args, far, begin, end);
  });
}

template <class T>
static void lookup_bag_backward_kind(const LookupBagBackwardArgs<T>& args, const BagGradients<T>& from, int64_t begin,
                                     int64_t end) {
  switch (args.bags.table.layout.kind) {
    case IndexKind::full: return lookup_bag_backward_rows<T, IndexKind::full>(args, from, begin, end);
    case IndexKind::prefix: return lookup_bag_backward_rows<T, IndexKind::prefix>(args, from, begin, end);
    case IndexKind::bits: return lookup_bag_backward_rows<T, IndexKind::bits>(args, from, begin, end);
    default: return lookup_bag_backward_rows<T, IndexKind::cols8>(args, from, begin, end);
  }
}

}  // namespace recsparse::RS_ISA
