#include "core/init.h"
#include "cuda/build_index.cuh"
#include "cuda/init.h"

namespace recsparse::cuda {
namespace {

// The random rank of a slot. Four columns share a Philox block, which each of their lanes computes: arithmetic is cheap here.
__device__ __forceinline__ uint32_t slot_rank(uint64_t seed, int64_t row, int column) {
  uint32_t rank[4];
  init_mask_ranks(seed, row, column / 4, rank);
  const int k = column % 4;
  return k == 0 ? rank[0] : k == 1 ? rank[1] : k == 2 ? rank[2] : rank[3];
}

struct RecipeSource {
  struct Place {
    int length;
  };
  Layout layout;
  int32_t start;
  uint64_t kept_weights, seed, threshold;

  // floor(kept row / rows). With kept = q rows + r that is q row + floor(r row / rows), whose dividend may have 80 bits: a
  // long division.
  __device__ uint64_t share(uint64_t row) const {
    const uint64_t rows = static_cast<uint64_t>(layout.rows);
    const uint64_t whole = kept_weights / rows * row, rest = kept_weights % rows;
    const uint64_t high = mul_hi64(rest, row);
    uint64_t low = rest * row, quotient = 0, remainder = high;
    for (int bit = 0; bit < 64; ++bit) {  // rest < rows, so the quotient is at most `row` and remainder < rows
      remainder = remainder << 1 | low >> 63;
      low <<= 1;
      quotient <<= 1;
      if (remainder >= rows) {
        remainder -= rows;
        quotient |= 1;
      }
    }
    return whole + quotient;
  }
  __device__ Place begin(int64_t row) const {
    if (start == 0) return {layout.dim};
    if (start == 1)
      return {static_cast<int>(share(static_cast<uint64_t>(row) + 1) - share(static_cast<uint64_t>(row)))};
    return {0};
  }
  __device__ bool kept(Place place, int64_t row, int column) const {
    return start == 2 ? slot_rank(seed, row, column) < threshold : column < place.length;
  }
  __device__ void emit(int64_t, int, uint64_t) const {}
};

// Grid: grid_for(rows), a warp each, lane = column. Integer atomics on counters that stay in the second-level cache: ranks are
// uniform, so they seldom meet.
__global__ void __launch_bounds__(kThreads) rank_histogram_kernel(RankHistogramArgs args) {
  const int lane = threadIdx.x % 32;
  for (int64_t row = global_thread() / 32; row < args.layout.rows; row += global_threads() / 32) {
    for (int column = lane; column < args.layout.dim; column += 32) {
      const uint32_t rank = slot_rank(args.seed, row, column);
      if (args.level == 1 && rank >> 16 != args.upper) continue;
      const uint32_t bucket = args.level == 0 ? rank >> 16 : rank & 0xffffu;
      atomicAdd(reinterpret_cast<unsigned long long*>(args.counts + bucket), 1ull);
    }
  }
}

// Grid: grid_for(rows), a warp each, lane = column. Bytes moved, a row: an index block, its kept values written.
template <class T>
__global__ void __launch_bounds__(kThreads)
    init_values_kernel(DeviceTable table, uint64_t seed, float scale, T* values) {
  const int lane = threadIdx.x % 32;
  for (int64_t row = global_thread() / 32; row < table.layout.rows; row += global_threads() / 32) {
    const Row<8> ref = locate_row<8, 32>(table, row);
    uint64_t position = ref.start;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const uint32_t word = ref.mask[j];
      if (word >> lane & 1) {
        values[position + __popc(word & ((1u << lane) - 1))] = narrow(T{}, init_value(seed, row, 32 * j + lane, scale));
      }
      position += __popc(word);
    }
  }
}

}  // namespace

const char* rank_histogram(const RankHistogramArgs& args, void* stream) {
  launch("rank_histogram", rank_histogram_kernel, grid_for(args.layout.rows, kThreads / 32), kThreads, stream, args);
  return launch_error();
}

int64_t init_index_workspace_bytes(const Layout& layout) {
  Workspace space(nullptr);
  const BuildSpace build(space, layout);
  return space.bytes();
}

const char* init_index(const InitIndexArgs& args, void* stream) {
  Workspace space(args.workspace);
  BuildSpace build(space, args.layout);
  build.result = reinterpret_cast<BuildResult*>(args.result);
  const RecipeSource source{args.layout, args.start, static_cast<uint64_t>(args.kept), args.seed, args.threshold};
  if (const char* error = count_rows(source, args.layout, build, stream)) return error;
  return write_rows(source, args.layout, build, args.index, args.cols, stream);
}

const char* init_values(const InitValuesArgs& args, void* stream) {
  const DeviceTable table = device_table(args.table);
  with_values(args.type, [&](auto storage) {
    using T = decltype(storage);
    launch("init_values", init_values_kernel<T>, grid_for(table.layout.rows, kThreads / 32), kThreads, stream, table,
           args.seed, args.scale, static_cast<T*>(args.values));
  });
  return launch_error();
}

}  // namespace recsparse::cuda
