#include "cuda/errors.cuh"
#include "cuda/lookup.h"
#include "cuda/row_keys.cuh"
#include "cuda/sum_rows.cuh"

namespace recsparse::cuda {
namespace {

// Rows that a group has in flight. A cold row is three dependent accesses: id, index block, values. An H200 needs about
// 25 KB in flight a multiprocessor to reach its bandwidth (4.8 TB/s x 700 ns / 132). With d = 64 floats, 1,024 resident
// threads (64 registers each) are 64 groups of 16 lanes; four rows each, of 64 bytes of index or of values, are 16 KB, and the
// stores of the rows before are on their way besides. More rows a thread would spill.
template <int W>
constexpr int kRowsInFlight = W == 2   ? 4
                              : W == 4 ? 2
                                       : 1;

// Grid: grid_for(count) blocks of 256 threads; DenseRow<T, W>::kLanes lanes share a row (16 for d = 64 floats), so that they
// write it as one contiguous run of 16-byte stores, and load its index block as one line. Each lane finds its columns' kept
// values by rank and gathers them: of the one or two lines that hold a row all lanes read, so the first-level cache serves
// all accesses but one. Bytes moved, a row: 8 (id), 64 (index block), kept values rounded up to sectors of 32 bytes, and
// dim values written.
template <class T, IndexKind K, int W>
__global__ void __launch_bounds__(kThreads, W == 8 ? 3 : 4)
    lookup_kernel(DeviceTable table, const T* __restrict__ values, const int64_t* __restrict__ ids, int64_t count,
                  T* __restrict__ out, bool whole, ErrorSite bad_ids) {
  using Dense = DenseRow<T, W>;
  constexpr int G = Dense::kLanes, kRows = kRowsInFlight<W>;
  const int dim = table.layout.dim;
  const int64_t tile = kThreads / G * kRows, tiles = (count + tile - 1) / tile;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t first = t * tile + threadIdx.x / G;
    int64_t row[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = first + r * (kThreads / G);
      row[r] = at < count ? ids[at] : -1;
      if (at < count && static_cast<uint64_t>(row[r]) >= static_cast<uint64_t>(table.layout.rows)) {
        if (threadIdx.x % G == 0) report(bad_ids, at, row[r]);
        row[r] = 0;
      }
    }
    BlockWords<G> block[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) block[r] = load_block<K, W, G>(table, row[r]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      Row<W> ref = decode_block<K, W, G>(table, block[r], row[r]);
      complete_row<K, W, G>(table, ref);
      const int64_t at = first + r * (kThreads / G);
#pragma unroll
      for (int c = 0; c < Dense::kChunks; ++c) {
        const ColumnBits columns = column_bits(ref, Dense::column(c));
        const T* value = values + ref.start + columns.before;
        Vector<T> found;
#pragma unroll
        for (int i = 0; i < Dense::kVector; ++i) {
          found.x[i] = T{};
          if (columns.bits >> i & 1) found.x[i] = value[__popc(columns.bits & ((1u << i) - 1))];
        }
        const int column = Dense::column(c);
        if (row[r] >= 0) store_vector(out + at * dim + column, found, dim - column, whole);
      }
    }
  }
}

RunSpace carve(const LookupBackwardArgs& args, Workspace& space) { return RunSpace(space, args.count); }

}  // namespace

const char* lookup(const LookupArgs& args, void* stream) {
  const DeviceTable table = device_table(args.table);
  with_values(args.type, [&](auto storage) {
    using T = decltype(storage);
    with_width(table.layout, [&](auto width) {
      constexpr int W = decltype(width)::width;
      with_kind(table.layout, [&](auto kind) {
        const int64_t blocks = grid_for(args.count, kThreads / DenseRow<T, W>::kLanes * kRowsInFlight<W>);
        launch("lookup", lookup_kernel<T, decltype(kind)::kind, W>, blocks, kThreads, stream, table,
               static_cast<const T*>(args.values), args.ids, args.count, static_cast<T*>(args.out),
               whole_vectors(static_cast<const T*>(args.out), table.layout.dim), args.bad_ids);
      });
    });
  });
  return launch_error();
}

int64_t lookup_backward_workspace_bytes(const LookupBackwardArgs& args) {
  Workspace space(nullptr);
  carve(args, space);
  return space.bytes();
}

const char* lookup_backward(const LookupBackwardArgs& args, void* stream) {
  Workspace space(args.workspace);
  const RunSpace own = carve(args, space);
  const DeviceTable table = device_table(args.table);
  clear(args.grad_values, args.capacity * value_bytes(args.type), stream);
  Runs runs;
  if (const char* error = sort_ids(args.ids, args.count, table.layout.rows, args.padding, own, &runs, stream)) {
    return error;
  }
  with_values(args.type, [&](auto storage) {
    using T = decltype(storage);
    with_width(table.layout, [&](auto width) {
      const T* grad = static_cast<const T*>(args.grad);
      const SumRows<T, decltype(width)::width> op{
          table, grad, nullptr, nullptr, static_cast<T*>(args.grad_values), whole_vectors(grad, table.layout.dim)};
      launch_runs("lookup_backward", op, runs, stream);
    });
  });
  return launch_error();
}

}  // namespace recsparse::cuda
