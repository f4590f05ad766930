// Sums over the neighbours of the rows of a graph (core/graph.h): what spmm and LightGCN are made of. A warp forms a sum; rows
// with many neighbours are cut in segments, whose sums are added by a second kernel in a fixed order. No float atomics:
// the same bits in every run.
//
// `Op` is a POD with
//   using Index                           of the graph
//   static constexpr int kLanes, kSums    lanes that share a row; columns that a lane owns
//   static constexpr int kBlocks          that a multiprocessor holds at least: 4 leave a thread 64 registers
//   bool skip() const                     true: the call does nothing (a mistake in its arguments)
//   int64_t rows() const                  pieces of work beside the segments
//   int64_t slot(i) const                 the slot of piece i; -1: none
//   bool wanted(node) const               whether the row of a node that is cut is among them
//   void add(begin, end, sums) const      called by whole warps: adds the edges [begin, end); see add_neighbours
//   void finish(node, sums) const         called by whole warps, whose groups of kLanes all hold the row's sums; those behind
//                                         the first write nothing
#pragma once

#include "core/graph.h"
#include "cuda/table.cuh"

namespace recsparse::cuda {

// A longer row is cut in segments of as many edges. A warp has 8 rows of 64 floats in flight and waits some 0.7 us for
// them, so a segment takes some 40 us, and its sum is 1/512 of what it reads. The emulator has small graphs.
constexpr int64_t kCutEdges = kEmulated ? 32 : 512;

// Neighbours that a group of lanes asks for before it adds the first: four vectors a lane fit in 64 registers.
constexpr int kNeighboursInFlight = 4;

struct EdgeSegment {
  int64_t slot, begin, end;
};

// The segments [first, first + count) of a slot.
struct CutRow {
  int64_t slot;
  uint32_t first, count;
};

// The rows that are cut. Lists are in any order; what is summed up for an entry does not depend on it.
struct CutRows {
  uint32_t* counts;  // [2] segments, rows
  EdgeSegment* segments;
  CutRow* rows;
  float* sums;  // of the segments

  CutRows(Workspace& space, int64_t edges, int64_t width)
      : counts(space.take<uint32_t>(2)),
        segments(space.take<EdgeSegment>(segment_room(edges))),
        rows(space.take<CutRow>(edges / kCutEdges)),
        sums(space.take<float>(segment_room(edges) * width)) {}

  // A row that is cut has more than kCutEdges edges, so there are fewer than edges / kCutEdges such rows.
  static int64_t segment_room(int64_t edges) { return 2 * (edges / kCutEdges); }
};

// Fills the lists; counts are 0 before. Grid: grid_for(nodes), one slot a thread and stride. Bytes moved: 8 a slot.
template <class Index>
__global__ void __launch_bounds__(kThreads) cut_rows_kernel(GraphView<Index> graph, CutRows cuts) {
  for (int64_t slot = global_thread(); slot < graph.nodes; slot += global_threads()) {
    const int64_t begin = graph.offsets[slot], end = graph.offsets[slot + 1];
    if (end - begin <= kCutEdges) continue;
    const uint32_t count = static_cast<uint32_t>((end - begin + kCutEdges - 1) / kCutEdges);
    const uint32_t first = atomicAdd(&cuts.counts[0], count);
    cuts.rows[atomicAdd(&cuts.counts[1], 1u)] = CutRow{slot, first, count};
    for (uint32_t s = 0; s < count; ++s) {
      const int64_t from = begin + s * kCutEdges;
      cuts.segments[first + s] = EdgeSegment{slot, from, smaller(from + kCutEdges, end)};
    }
  }
}

template <class Index>
void cut_rows(const GraphView<Index>& graph, const CutRows& cuts, void* stream) {
  clear(cuts.counts, 2 * sizeof(uint32_t), stream);
  launch("cut_rows", cut_rows_kernel<Index>, grid_for(graph.nodes, kThreads), kThreads, stream, graph, cuts);
}

// Adds to `sums` the rows of the edges [begin, end). `Source` is a POD with
//   using Id, Part                        number of a row; the columns that a lane loads of it
//   static constexpr int kLanes
//   static constexpr bool kFactors                           whether an edge has a factor
//   struct Edge { Id row; float factor; } edge(at) const     row -1: nothing is added
//   Part load(row) const
//   void accumulate(part, factor, sums) const
// The lanes of a warp read 32 edges; its groups of kLanes then take the edges in turn, `kNeighboursInFlight` at a time.
template <class Source>
__device__ __forceinline__ void add_neighbours(const Source& source, int64_t begin, int64_t end, float* sums) {
  using Edge = typename Source::Edge;
  constexpr int kAbreast = 32 / Source::kLanes;
  const int lane = threadIdx.x % 32, group = lane / Source::kLanes;
  for (int64_t at = begin; at < end; at += 32) {
    const Edge own = at + lane < end ? source.edge(at + lane) : Edge{-1, 0.0f};
    unsigned left = __ballot_sync(kWholeWarp, own.row >= 0);
    while (left) {
      typename Source::Part parts[kNeighboursInFlight];
      float factors[kNeighboursInFlight] = {};
#pragma unroll
      for (int n = 0; n < kNeighboursInFlight; ++n) {
        unsigned mine = left;
#pragma unroll
        for (int g = 1; g < kAbreast; ++g) mine = group >= g ? mine & (mine - 1) : mine;
#pragma unroll
        for (int g = 0; g < kAbreast; ++g) left &= left - 1;
        const int from = mine ? __ffs(static_cast<int>(mine)) - 1 : 0;
        const auto row = __shfl_sync(kWholeWarp, own.row, from);
        if (Source::kFactors) factors[n] = __shfl_sync(kWholeWarp, own.factor, from);
        parts[n] = typename Source::Part{};
        if (mine) parts[n] = source.load(row);
      }
#pragma unroll
      for (int n = 0; n < kNeighboursInFlight; ++n) source.accumulate(parts[n], factors[n], sums);
    }
  }
}

// Grid: grid_for(pieces), a warp a piece: first the segments, then the rows that are not cut. Bytes moved, an edge: its
// neighbour's id and row, and what `Op` does besides; 8 and an id a row.
template <class Op>
__global__ void __launch_bounds__(kThreads, Op::kBlocks)
    neighbour_sums_kernel(Op op, GraphView<typename Op::Index> graph, CutRows cuts) {
  if (op.skip()) return;
  constexpr int G = Op::kLanes, kWidth = G * Op::kSums;
  const int lane = threadIdx.x % 32;
  const int64_t segments = cuts.counts[0], pieces = segments + op.rows();
  for (int64_t piece = global_thread() / 32; piece < pieces; piece += global_threads() / 32) {
    EdgeSegment work;
    if (piece < segments) {
      work = cuts.segments[piece];
      if (!op.wanted(graph.node[work.slot])) continue;
    } else {
      work.slot = op.slot(piece - segments);
      if (work.slot < 0) continue;
      work.begin = graph.offsets[work.slot];
      work.end = graph.offsets[work.slot + 1];
      if (work.end - work.begin > kCutEdges) continue;
    }
    float sums[Op::kSums] = {};
    op.add(work.begin, work.end, sums);
#pragma unroll
    for (int s = 0; s < Op::kSums; ++s) {
#pragma unroll
      for (int step = G; step < 32; step *= 2) sums[s] += __shfl_xor_sync(kWholeWarp, sums[s], step);
    }
    if (piece >= segments) {
      op.finish(static_cast<int64_t>(graph.node[work.slot]), sums);
    } else if (lane < G) {
#pragma unroll
      for (int s = 0; s < Op::kSums; ++s) cuts.sums[piece * kWidth + s * G + lane] = sums[s];
    }
  }
}

template <class Op>
struct SegmentParts {
  float sums[kThreads / Op::kLanes][Op::kLanes * Op::kSums];
};

// The rows that are cut. Grid: two blocks a multiprocessor, each takes rows of the list in turn: nobody on the host knows
// how many there are. The groups of a block add up interleaved segments. Bytes moved: 4 columns a segment.
template <class Op>
__global__ void __launch_bounds__(kThreads, 2)
    cut_rows_sums_kernel(Op op, GraphView<typename Op::Index> graph, CutRows cuts) {
  if (op.skip()) return;
  constexpr int G = Op::kLanes, kGroups = kThreads / G, kWidth = G * Op::kSums;
  SegmentParts<Op>& parts = shared<SegmentParts<Op>>();
  const int lane = threadIdx.x % G, group = threadIdx.x / G;
  const uint32_t rows = cuts.counts[1];
  for (uint32_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const CutRow row = cuts.rows[r];
    const int64_t node = static_cast<int64_t>(graph.node[row.slot]);
    if (!op.wanted(node)) continue;
    float sums[Op::kSums] = {};
#pragma unroll 4
    for (uint32_t i = group; i < row.count; i += kGroups) {
#pragma unroll
      for (int s = 0; s < Op::kSums; ++s) sums[s] += cuts.sums[(int64_t{row.first} + i) * kWidth + s * G + lane];
    }
#pragma unroll
    for (int s = 0; s < Op::kSums; ++s) parts.sums[group][s * G + lane] = sums[s];
    __syncthreads();
#pragma unroll
    for (int s = 0; s < Op::kSums; ++s) {
      float sum = 0;
#pragma unroll 8
      for (int g = 0; g < kGroups; ++g) sum += parts.sums[g][s * G + lane];
      sums[s] = sum;
    }
    if (threadIdx.x < 32) op.finish(node, sums);
    __syncthreads();
  }
}

// `pieces`: at most this many of op.rows().
template <class Op>
void launch_neighbour_sums(const char* name, const Op& op, const GraphView<typename Op::Index>& graph, int64_t edges,
                           int64_t pieces, const CutRows& cuts, void* stream) {
  const int64_t segments = CutRows::segment_room(edges);
  launch(name, neighbour_sums_kernel<Op>, grid_for(pieces + segments, kThreads / 32), kThreads, stream, op, graph,
         cuts);
  const int64_t blocks = segments > 0 ? 2 * multiprocessors() : 0;
  launch(name, cut_rows_sums_kernel<Op>, blocks, kThreads, stream, op, graph, cuts);
}

}  // namespace recsparse::cuda
