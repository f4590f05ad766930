#include "cuda/inspect.h"
#include "cuda/table.cuh"

namespace recsparse::cuda {
namespace {

// Start and count of a row, without the columns of cols8.
template <int G>
__device__ __forceinline__ Row<8> locate_span(const DeviceTable& table, int64_t row) {
  switch (table.layout.kind) {
    case IndexKind::full: return decode_block<IndexKind::full, 8, G>(table, BlockWords<G>{}, row);
    case IndexKind::prefix: {
      const BlockWords<G> block = load_block<IndexKind::prefix, 8, G>(table, row);
      return decode_block<IndexKind::prefix, 8, G>(table, block, row);
    }
    case IndexKind::bits: {
      const BlockWords<G> block = load_block<IndexKind::bits, 8, G>(table, row);
      return decode_block<IndexKind::bits, 8, G>(table, block, row);
    }
    default: {
      const BlockWords<G> block = load_block<IndexKind::cols8, 8, G>(table, row);
      return decode_block<IndexKind::cols8, 8, G>(table, block, row);
    }
  }
}

// Eight lanes a row: what an index block of one line needs.
constexpr int kLanes = 8;

// The row of this thread's group in a round, or -1; every warp goes as many rounds as the last one.
struct RowRounds {
  int64_t rounds, groups;
  __device__ explicit RowRounds(int64_t rows) {
    groups = global_threads() / kLanes;
    rounds = (rows + groups - 1) / groups;
  }
  __device__ int64_t row(int64_t round, int64_t rows) const {
    const int64_t row = global_thread() / kLanes + round * groups;
    return row < rows ? row : -1;
  }
};

// Grid: grid_for(rows), eight lanes a row. Bytes moved, a row: an index block, mostly from the cache, and 8 written.
__global__ void __launch_bounds__(kThreads, 4) row_counts_kernel(DeviceTable table, int64_t* counts) {
  const RowRounds all(table.layout.rows);
  for (int64_t round = 0; round < all.rounds; ++round) {
    const int64_t row = all.row(round, table.layout.rows);
    const Row<8> ref = locate_span<kLanes>(table, row);
    if (row >= 0 && threadIdx.x % kLanes == 0) counts[row] = ref.count;
  }
}

// The same with a byte written.
__global__ void __launch_bounds__(kThreads, 4) column_mask_kernel(DeviceTable table, int column, uint8_t* kept) {
  const RowRounds all(table.layout.rows);
  for (int64_t round = 0; round < all.rounds; ++round) {
    const int64_t row = all.row(round, table.layout.rows);
    const Row<8> ref = locate_row<8, kLanes>(table, row);
    if (row >= 0 && threadIdx.x % kLanes == 0) kept[row] = column_bits(ref, column).bits & 1;
  }
}

__global__ void index_faults_kernel(IndexFaults* faults) {
  if (global_thread() == 0) *faults = IndexFaults{~0ull, ~0ull, ~0ull, 0};
}

__device__ __forceinline__ void note(uint64_t* first, int64_t at) {
  atomicMin(reinterpret_cast<unsigned long long*>(first), static_cast<unsigned long long>(at));
}

// Lengths and block starts. Grid: grid_for(rows), eight lanes a row. Bytes moved, a row: an index block from the cache.
__global__ void __launch_bounds__(kThreads, 4) check_rows_kernel(DeviceTable table, IndexFaults* faults) {
  const int64_t rows = table.layout.rows;
  const RowRounds all(rows);
  for (int64_t round = 0; round < all.rounds; ++round) {
    const int64_t row = all.row(round, rows);
    const Row<8> ref = locate_span<kLanes>(table, row);
    if (row < 0 || threadIdx.x % kLanes != 0) continue;
    bool beyond = ref.count > table.layout.dim;
    if (table.layout.kind == IndexKind::bits) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        beyond = beyond || (ref.mask[j] & ~static_cast<uint32_t>(low_bits(table.layout.dim - 32 * j))) != 0;
      }
    }
    if (beyond) note(&faults->length, row);
    const uint64_t end = ref.start + static_cast<uint64_t>(ref.count);
    if (row == rows - 1) faults->kept = end;
    if (row == 0 && ref.start != 0) note(&faults->start, 0);
    // The last row of a block ends where the next block starts.
    if (row + 1 < rows && (row + 1) % table.per_block == 0) {
      const int64_t next = (row + 1) / table.per_block;
      if (table.index[next * table.block_words] != end) note(&faults->start, next);
    }
  }
}

// Columns of cols8, once starts and lengths are known to be right. Grid: grid_for(rows), eight lanes a row.
__global__ void __launch_bounds__(kThreads, 4)
    check_columns_kernel(DeviceTable table, int64_t capacity, IndexFaults* faults) {
  if (faults->length != ~0ull || faults->start != ~0ull || faults->kept > static_cast<uint64_t>(capacity)) return;
  const RowRounds all(table.layout.rows);
  for (int64_t round = 0; round < all.rounds; ++round) {
    const int64_t row = all.row(round, table.layout.rows);
    const Row<8> ref = locate_span<kLanes>(table, row);
    for (int i = threadIdx.x % kLanes; i < ref.count; i += kLanes) {
      const int column = table.cols[ref.start + i];
      const int before = i > 0 ? table.cols[ref.start + i - 1] : -1;
      if (column <= before || column >= table.layout.dim) note(&faults->column, row);
    }
  }
}

}  // namespace

const char* row_counts(const TableView& table, int64_t* counts, void* stream) {
  launch("row_counts", row_counts_kernel, grid_for(table.layout.rows, kThreads / kLanes), kThreads, stream,
         device_table(table), counts);
  return launch_error();
}

const char* column_mask(const TableView& table, int column, uint8_t* kept, void* stream) {
  launch("column_mask", column_mask_kernel, grid_for(table.layout.rows, kThreads / kLanes), kThreads, stream,
         device_table(table), column, kept);
  return launch_error();
}

const char* check_index(const TableView& table, int64_t capacity, IndexFaults* faults, void* stream) {
  const int64_t blocks = grid_for(table.layout.rows, kThreads / kLanes);
  launch("index_faults", index_faults_kernel, 1, 32, stream, faults);
  if (table.layout.kind == IndexKind::full) return launch_error();
  const DeviceTable own = device_table(table);
  launch("check_rows", check_rows_kernel, blocks, kThreads, stream, own, faults);
  if (table.layout.kind == IndexKind::cols8) {
    launch("check_columns", check_columns_kernel, blocks, kThreads, stream, own, capacity, faults);
  }
  return launch_error();
}

}  // namespace recsparse::cuda
