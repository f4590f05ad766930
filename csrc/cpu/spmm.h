// spmm: out = D^-1/2 A D^-1/2 x over the graph of core/graph.h. T: float, Half or BFloat16, the type of x and out; sums are
// float.
#pragma once

#include <cstdint>
#include <vector>

#include "core/graph.h"
#include "core/half.h"

namespace recsparse {

// A piece of a row that is cut.
struct Segment {
  int64_t slot, begin, end;  // edges [begin, end)
};

// The segments of the rows before chunks[0], in order.
template <class Index>
std::vector<Segment> cut_segments(const GraphView<Index>& graph) {
  std::vector<Segment> segments;
  for (int64_t slot = 0; slot < graph.chunks[0]; ++slot) {
    for (int64_t e = graph.offsets[slot]; e < graph.offsets[slot + 1]; e += kSegmentEdges) {
      const int64_t end = graph.offsets[slot + 1];
      segments.push_back(Segment{slot, e, e + kSegmentEdges < end ? e + kSegmentEdges : end});
    }
  }
  return segments;
}

template <class T, class Index>
struct SpmmArgs {
  GraphView<Index> graph;
  const T* x;  // [nodes, dim]
  int64_t dim;
  T* out;  // [nodes, dim], not x
};

template <class T, class Index>
void spmm(const SpmmArgs<T, Index>& args, int threads);

template <class T, class Index>
struct SpmmVariant {
  // The rows of the slots [begin, end).
  void (*rows)(const SpmmArgs<T, Index>& args, int64_t begin, int64_t end);
  // The sum over a segment, unscaled by its own row: float [dim].
  void (*segment)(const SpmmArgs<T, Index>& args, const Segment& segment, float* sum);
  // The row of a slot from the sums of its segments: float [count, dim].
  void (*join)(const SpmmArgs<T, Index>& args, int64_t slot, const float* sums, int64_t count);
};

struct SpmmKernel {
  SpmmVariant<float, int32_t> f32;
  SpmmVariant<float, int64_t> f32_wide;
  SpmmVariant<Half, int32_t> f16;
  SpmmVariant<Half, int64_t> f16_wide;
  SpmmVariant<BFloat16, int32_t> bf16;
  SpmmVariant<BFloat16, int64_t> bf16_wide;
};

}  // namespace recsparse
