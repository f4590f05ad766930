// Kernels over runs of equal rows (runs.h). `Op` is a POD with
//   static constexpr int kLanes, kSums   lanes that share a row; floats that a lane sums up
//   using Place                          what it knows of a row
//   bool skip() const                    true: the call does nothing (a mistake in its arguments)
//   Place begin(row, at, first) const    called by whole warps; row = -1: no row. The run starts with key number `at`, whose
//                                        occurrence is `first`
//   void add(place, occurrence, float sums[kSums]) const        adds one occurrence
//   void finish(place, row, count, float sums[kSums]) const     called by whole warps; row = -1: no row
// Sums of up to kLongRun occurrences are taken in ascending order, as on the CPU. Longer ones are cut in as many
// interleaved parts as a block has groups; the parts are added in a fixed order.
#pragma once

#include "core/rows.h"
#include "cuda/launch.h"
#include "cuda/runs.h"

namespace recsparse::cuda {

__device__ __forceinline__ int64_t run_row(const Runs& runs, int64_t at) {
  return static_cast<int64_t>(runs.keys[at] >> runs.shift & runs.row_mask);
}
__device__ __forceinline__ int64_t run_occurrence(const Runs& runs, int64_t at) {
  return static_cast<int64_t>(runs.keys[at] & ((1ull << runs.shift) - 1));
}

// Blocks that a multiprocessor holds at least: four leave a thread 64 registers, and rows of more than 128 columns need more.
template <class Op>
constexpr int kRunBlocks = sizeof(typename Op::Place) > 40 ? 2 : 4;

// Grid: grid_for(keys); a group of Op::kLanes lanes takes one key and goes on if it is the first of its row. Bytes moved:
// 8 a key, and what the op moves a row and an occurrence; the loads of four occurrences are in flight at once.
template <class Op>
__global__ void __launch_bounds__(kThreads, kRunBlocks<Op>) short_runs_kernel(Op op, Runs runs) {
  constexpr int G = Op::kLanes;
  if (op.skip()) return;
  const int lane = threadIdx.x % G;
  const int64_t groups = global_threads() / G;
  const int64_t first_group = global_thread() / G;
  const int64_t rounds = (runs.count + groups - 1) / groups;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t at = first_group + round * groups;
    int64_t row = at < runs.count ? run_row(runs, at) : -1;
    if (row >= runs.rows || (row >= 0 && at > 0 && run_row(runs, at - 1) == row)) row = -1;
    int length = 0;
    for (int seen = 0; seen <= kLongRun; seen += G) {
      const int64_t next = at + seen + lane;
      const bool same = row >= 0 && next < runs.count && run_row(runs, next) == row;
      const unsigned votes = __ballot_sync(kWholeWarp, same);
      const unsigned mine = (votes >> (threadIdx.x % 32 / G * G)) & static_cast<unsigned>(low_bits(G));
      if (length == seen) length += __popc(mine);
      if (!__any_sync(kWholeWarp, row >= 0 && length == seen + G)) break;
    }
    if (length > kLongRun) {
      if (lane == 0) runs.long_heads[atomicAdd(runs.long_count, 1u)] = at;
      row = -1;
    }
    const int64_t first = row >= 0 ? run_occurrence(runs, at) : 0;
    typename Op::Place place = op.begin(row, at, first);
    float sums[Op::kSums] = {};
    if (row >= 0) {
#pragma unroll 4
      for (int i = 0; i < length; ++i) op.add(place, run_occurrence(runs, at + i), sums);
    }
    op.finish(place, row, length, sums);
  }
}

template <class Op>
struct RunParts {
  float sums[kThreads / Op::kLanes][Op::kLanes * Op::kSums];
  int64_t length;
};

// Grid: two blocks a multiprocessor, each takes rows of the list in turn: nobody on the host knows how many there are.
template <class Op>
__global__ void __launch_bounds__(kThreads, kRunBlocks<Op>) long_runs_kernel(Op op, Runs runs) {
  constexpr int G = Op::kLanes, kGroups = kThreads / G;
  if (op.skip()) return;
  RunParts<Op>& parts = shared<RunParts<Op>>();
  const int lane = threadIdx.x % G, group = threadIdx.x / G;
  const uint32_t rows = *runs.long_count;
  for (uint32_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const int64_t head = runs.long_heads[r], row = run_row(runs, head);
    if (threadIdx.x == 0) {
      int64_t low = head, high = runs.count;  // the first key of another row, by bisection
      while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        run_row(runs, middle) == row ? low = middle + 1 : high = middle;
      }
      parts.length = low - head;
    }
    __syncthreads();
    const int64_t length = parts.length;
    typename Op::Place place = op.begin(row, head, run_occurrence(runs, head));
    float sums[Op::kSums] = {};
#pragma unroll 4
    for (int64_t i = group; i < length; i += kGroups) op.add(place, run_occurrence(runs, head + i), sums);
#pragma unroll
    for (int s = 0; s < Op::kSums; ++s) parts.sums[group][s * G + lane] = sums[s];
    __syncthreads();
#pragma unroll
    for (int s = 0; s < Op::kSums; ++s) {
      float sum = 0;
      for (int g = 0; g < kGroups; ++g) sum += parts.sums[g][s * G + lane];
      sums[s] = sum;
    }
    if (threadIdx.x < 32) op.finish(place, group == 0 ? row : -1, static_cast<int>(length), sums);
    __syncthreads();
  }
}

// `runs.long_count` is 0 before.
template <class Op>
void launch_runs(const char* name, const Op& op, const Runs& runs, void* stream) {
  if (runs.count == 0) return;
  launch(name, short_runs_kernel<Op>, grid_for(runs.count, kThreads / Op::kLanes), kThreads, stream, op, runs);
  const int64_t blocks = runs.count > kLongRun ? 2 * multiprocessors() : 0;
  launch(name, long_runs_kernel<Op>, blocks, kThreads, stream, op, runs);
}

}  // namespace recsparse::cuda
