#include "cuda/errors.cuh"
#include "cuda/lookup_bag.h"
#include "cuda/row_keys.cuh"
#include "cuda/sum_rows.cuh"

namespace recsparse::cuda {
namespace {

struct Bag {
  int64_t begin, end;
};

// The positions of a bag, within [0, count] whatever the offsets say.
__device__ __forceinline__ Bag bag_at(const BagIds& bags, int64_t bag, bool reporting) {
  int64_t begin = bags.offsets[bag], end = bags.offsets[bag + 1];
  if (reporting) {
    if (bag == 0 && begin != 0) report(bags.bad_offsets, 0, begin);
    if (end < begin || end > bags.count) report(bags.bad_offsets, bag + 1, end);
  }
  if (begin < 0 || begin > bags.count) begin = 0;
  if (end < begin) end = begin;
  return Bag{begin, end < bags.count ? end : bags.count};
}

// The row of a position; -1: it is that of `padding`.
__device__ __forceinline__ int64_t bag_row(const BagIds& bags, int64_t at, bool reporting) {
  int64_t row = bags.ids[at];
  if (static_cast<uint64_t>(row) >= static_cast<uint64_t>(bags.table.layout.rows)) {
    if (reporting) report(bags.bad_ids, at, row);
    row = 0;
  }
  return row == bags.padding ? -1 : row;
}

constexpr int kTogether = 2;  // rows of a bag that a group has in flight

// Grid: grid_for(bags); DenseRow<float, W>::kLanes lanes share a bag, and each sums the columns that it writes in registers:
// nothing of size [ids, dim] exists. Bytes moved: a row of lookup an id, and dim values written a bag.
template <class T, IndexKind K, int W>
__global__ void __launch_bounds__(kThreads, W == 8 ? 2 : 4)
    lookup_bag_kernel(DeviceTable table, BagIds bags, const T* values, T* out) {
  using Dense = DenseRow<float, W>;
  constexpr int G = Dense::kLanes, kOwn = 4 * Dense::kChunks;
  const int dim = table.layout.dim;
  const T* weights = static_cast<const T*>(bags.weights);
  const int64_t groups = global_threads() / G, rounds = (bags.bags + groups - 1) / groups;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t number = global_thread() / G + round * groups;
    const bool live = number < bags.bags, first = threadIdx.x % G == 0;
    const Bag bag = live ? bag_at(bags, number, first) : Bag{0, 0};
    float sums[kOwn] = {};
    int64_t counted = 0;
    for (int64_t at = bag.begin; __any_sync(kWholeWarp, at < bag.end); at += kTogether) {
      int64_t row[kTogether];
      BlockWords<G> block[kTogether];
#pragma unroll
      for (int r = 0; r < kTogether; ++r) {
        row[r] = at + r < bag.end ? bag_row(bags, at + r, first) : -1;
        counted += row[r] >= 0;
      }
#pragma unroll
      for (int r = 0; r < kTogether; ++r) block[r] = load_block<K, W, G>(table, row[r]);
#pragma unroll
      for (int r = 0; r < kTogether; ++r) {
        Row<W> ref = decode_block<K, W, G>(table, block[r], row[r]);
        complete_row<K, W, G>(table, ref);
        if (row[r] < 0) continue;
        const float weight = weights ? widen(weights[at + r]) : 1.0f;
#pragma unroll
        for (int c = 0; c < Dense::kChunks; ++c) {
          const ColumnBits columns = column_bits(ref, Dense::column(c));
          const T* value = values + ref.start + columns.before;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (columns.bits >> i & 1) {
              float& sum = sums[4 * c + i];
              sum = ::fmaf(widen(value[__popc(columns.bits & ((1u << i) - 1))]), weight, sum);
            }
          }
        }
      }
    }
    if (!live) continue;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const int column = Dense::column(c);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float sum = sums[4 * c + i];
        if (bags.mean && counted > 1) sum /= static_cast<float>(counted);
        if (column + i < dim) out[number * dim + column + i] = narrow(T{}, sum);
      }
    }
  }
}

// Which bag each position is in, and what its row is times there. Grid: grid_for(bags), a warp a bag, lane = position. Bytes
// moved, an id: 8 read, 12 written.
template <class T>
__global__ void __launch_bounds__(kThreads) bag_positions_kernel(BagIds bags, int64_t* bag_of, float* factor_of) {
  const int lane = threadIdx.x % 32;
  const T* weights = static_cast<const T*>(bags.weights);
  for (int64_t number = global_thread() / 32; number < bags.bags; number += global_threads() / 32) {
    const Bag bag = bag_at(bags, number, false);
    int64_t counted = 0;
    for (int64_t at = bag.begin; at < bag.end && bags.mean; at += 32) {
      const bool counts = at + lane < bag.end && bag_row(bags, at + lane, false) >= 0;
      counted += __popc(__ballot_sync(kWholeWarp, counts));
    }
    const float divisor = bags.mean && counted > 0 ? static_cast<float>(counted) : 1.0f;
    for (int64_t at = bag.begin + lane; at < bag.end; at += 32) {
      bag_of[at] = number;
      if (factor_of) factor_of[at] = (weights ? widen(weights[at]) : 1.0f) / divisor;
    }
  }
}

// Grid: grid_for(bags); a group of lanes takes a bag and goes through its ids: the dot product of each row and the bag's
// gradient. Bytes moved: a row of lookup and sizeof(T) written an id, dim values a bag.
template <class T, int W>
__global__ void __launch_bounds__(kThreads, W == 8 ? 2 : 4)
    bag_weights_kernel(DeviceTable table, BagIds bags, const T* values, const T* grad, T* grad_weights) {
  using Dense = DenseRow<float, W>;
  constexpr int G = Dense::kLanes, kOwn = 4 * Dense::kChunks;
  const int dim = table.layout.dim;
  const int64_t groups = global_threads() / G, rounds = (bags.bags + groups - 1) / groups;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t number = global_thread() / G + round * groups;
    const Bag bag = number < bags.bags ? bag_at(bags, number, false) : Bag{0, 0};
    float own[kOwn];
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
      const int column = Dense::column(n / 4) + n % 4;
      own[n] = number < bags.bags && column < dim ? widen(grad[number * dim + column]) : 0.0f;
    }
    for (int64_t at = bag.begin; __any_sync(kWholeWarp, at < bag.end); ++at) {
      const int64_t row = at < bag.end ? bag_row(bags, at, false) : -1;
      const Row<W> ref = locate_row<W, G>(table, row);
      float sum = 0;
#pragma unroll
      for (int c = 0; c < Dense::kChunks; ++c) {
        const ColumnBits columns = column_bits(ref, Dense::column(c));
        const T* value = values + ref.start + columns.before;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (columns.bits >> i & 1)
            sum = ::fmaf(widen(value[__popc(columns.bits & ((1u << i) - 1))]), own[4 * c + i], sum);
        }
      }
      sum = group_sum<G>(sum);
      if (row >= 0 && threadIdx.x % G == 0) grad_weights[at] = narrow(T{}, sum);
    }
  }
}

struct Scratch {
  int64_t* bag_of;   // [count]
  float* factor_of;  // [count], or null: all are 1
  RunSpace runs;

  Scratch(const LookupBagBackwardArgs& args, Workspace& space)
      : bag_of(space.take<int64_t>(args.bags.count)),
        factor_of(space.take<float>(args.bags.count)),
        runs(space, args.bags.count) {
    if (!args.bags.weights && !args.bags.mean) factor_of = nullptr;
  }
};

}  // namespace

const char* lookup_bag(const LookupBagArgs& args, void* stream) {
  const DeviceTable table = device_table(args.bags.table);
  with_values(args.bags.type, [&](auto storage) {
    using T = decltype(storage);
    with_width(table.layout, [&](auto width) {
      constexpr int W = decltype(width)::width;
      with_kind(table.layout, [&](auto kind) {
        launch("lookup_bag", lookup_bag_kernel<T, decltype(kind)::kind, W>,
               grid_for(args.bags.bags, kThreads / DenseRow<float, W>::kLanes), kThreads, stream, table, args.bags,
               static_cast<const T*>(args.values), static_cast<T*>(args.out));
      });
    });
  });
  return launch_error();
}

int64_t lookup_bag_backward_workspace_bytes(const LookupBagBackwardArgs& args) {
  Workspace space(nullptr);
  const Scratch scratch(args, space);
  return space.bytes();
}

const char* lookup_bag_backward(const LookupBagBackwardArgs& args, void* stream) {
  Workspace space(args.workspace);
  const Scratch scratch(args, space);
  const BagIds& bags = args.bags;
  const DeviceTable table = device_table(bags.table);
  clear(args.grad_values, args.capacity * value_bytes(bags.type), stream);
  Runs runs;
  if (const char* error =
          sort_ids(bags.ids, bags.count, table.layout.rows, bags.padding, scratch.runs, &runs, stream)) {
    return error;
  }
  with_values(bags.type, [&](auto storage) {
    using T = decltype(storage);
    launch("bag_positions", bag_positions_kernel<T>, grid_for(bags.bags, kThreads / 32), kThreads, stream, bags,
           scratch.bag_of, scratch.factor_of);
    with_width(table.layout, [&](auto width) {
      const T* grad = static_cast<const T*>(args.grad);
      const SumRows<T, decltype(width)::width> op{table,
                                                  grad,
                                                  scratch.bag_of,
                                                  scratch.factor_of,
                                                  static_cast<T*>(args.grad_values),
                                                  whole_vectors(grad, table.layout.dim)};
      launch_runs("lookup_bag_backward", op, runs, stream);
    });
  });
  return launch_error();
}

const char* lookup_bag_weights_backward(const LookupBagWeightsBackwardArgs& args, void* stream) {
  const BagIds& bags = args.bags;
  const DeviceTable table = device_table(bags.table);
  clear(args.grad_weights, bags.count * value_bytes(bags.type), stream);
  with_values(bags.type, [&](auto storage) {
    using T = decltype(storage);
    with_width(table.layout, [&](auto width) {
      constexpr int W = decltype(width)::width;
      launch("bag_weights", bag_weights_kernel<T, W>, grid_for(bags.bags, kThreads / DenseRow<float, W>::kLanes),
             kThreads, stream, table, bags, static_cast<const T*>(args.values), static_cast<const T*>(args.grad),
             static_cast<T*>(args.grad_weights));
    });
  });
  return launch_error();
}

}  // namespace recsparse::cuda
