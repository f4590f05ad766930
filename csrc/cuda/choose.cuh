// The positions that a selection chose, in order. `Op` is a POD with
//   uint32_t key(i) const
//   void emit(i, at) const       position i is the at-th chosen one
#pragma once

#include <initializer_list>

#include "cuda/select.h"
#include "cuda/sort.h"
#include "cuda/table.cuh"

namespace recsparse::cuda {

constexpr int kChooseTile = 1024;  // keys that a warp takes at a time

struct ChooseSpace {
  uint64_t *above, *equal;  // [tiles + 1] counts of keys above and equal to the threshold, then their sums
  char* scan;

  ChooseSpace(Workspace& space, int64_t count)
      : above(space.take<uint64_t>(count / kChooseTile + 2)),
        equal(space.take<uint64_t>(count / kChooseTile + 2)),
        scan(space.take<char>(scan_workspace_bytes(count / kChooseTile + 2))) {}
};

// Grid: grid_for(tiles), a warp each, lanes on neighbouring keys. Bytes moved: the keys.
template <class Op>
__global__ void __launch_bounds__(kThreads)
    choose_count_kernel(Op op, int64_t count, int64_t tiles, const SelectState* found, ChooseSpace space) {
  const int lane = threadIdx.x % 32;
  const uint32_t threshold = found->threshold;
  for (int64_t tile = global_thread() / 32; tile <= tiles; tile += global_threads() / 32) {
    uint64_t above = 0, equal = 0;
    for (int64_t i = tile * kChooseTile; i < smaller((tile + 1) * kChooseTile, count); i += 32) {
      const bool inside = i + lane < count;
      const uint32_t key = inside ? op.key(i + lane) : 0;
      above += static_cast<uint64_t>(__popc(__ballot_sync(kWholeWarp, inside && key > threshold)));
      equal += static_cast<uint64_t>(__popc(__ballot_sync(kWholeWarp, inside && key == threshold)));
    }
    if (lane == 0) {
      space.above[tile] = above;
      space.equal[tile] = equal;
    }
  }
}

// The same, with what the op writes.
template <class Op>
__global__ void __launch_bounds__(kThreads)
    choose_emit_kernel(Op op, int64_t count, int64_t tiles, const SelectState* found, ChooseSpace space) {
  const int lane = threadIdx.x % 32;
  const uint32_t threshold = found->threshold, below = (1u << lane) - 1;
  const uint64_t ties = static_cast<uint64_t>(found->ties);
  for (int64_t tile = global_thread() / 32; tile < tiles; tile += global_threads() / 32) {
    uint64_t equal_before = space.equal[tile];
    uint64_t at = space.above[tile] + (equal_before < ties ? equal_before : ties);
    for (int64_t i = tile * kChooseTile; i < smaller((tile + 1) * kChooseTile, count); i += 32) {
      const bool inside = i + lane < count;
      const uint32_t key = inside ? op.key(i + lane) : 0;
      const unsigned equal = __ballot_sync(kWholeWarp, inside && key == threshold);
      const bool tie = (equal >> lane & 1) && equal_before + static_cast<uint64_t>(__popc(equal & below)) < ties;
      const bool chosen = inside && (key > threshold || tie);
      const unsigned votes = __ballot_sync(kWholeWarp, chosen);
      if (chosen) op.emit(i + lane, static_cast<int64_t>(at) + __popc(votes & below));
      at += static_cast<uint64_t>(__popc(votes));
      equal_before += static_cast<uint64_t>(__popc(equal));
    }
  }
}

template <class Op>
const char* choose(const char* name, const Op& op, int64_t count, const SelectState* found, const ChooseSpace& space,
                   void* stream) {
  const int64_t tiles = (count + kChooseTile - 1) / kChooseTile, blocks = grid_for(tiles + 1, kThreads / 32);
  launch(name, choose_count_kernel<Op>, blocks, kThreads, stream, op, count, tiles, found, space);
  for (uint64_t* counts : {space.above, space.equal}) {
    if (const char* error = exclusive_scan(ScanArgs{counts, counts, tiles + 1, space.scan}, stream)) return error;
  }
  if (tiles > 0) launch(name, choose_emit_kernel<Op>, blocks, kThreads, stream, op, count, tiles, found, space);
  return launch_error();
}

}  // namespace recsparse::cuda
