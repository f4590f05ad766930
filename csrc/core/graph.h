// The bipartite graph that `spmm` propagates over: a symmetric CSR matrix without values, D^-1/2 A D^-1/2 once `scale`
// is applied on both sides. Rows lie in *slots*, in the order in which they are worked on: neighbours of one row stay in
// the cache for the next. Node ids are what the user sees; slots never leave the graph.
#pragma once

#include <cstdint>

namespace recsparse {

// A row with more neighbours than this is cut in segments of as many, whose sums are added afterwards in order.
constexpr int64_t kSegmentEdges = 2048;

template <class Index>
struct GraphView {
  int64_t nodes;
  const int64_t* offsets;   // [nodes + 1], by slot
  const Index* neighbours;  // [offsets[nodes]] node ids
  const Index* node;        // [nodes], of a slot
  const Index* slot;        // [nodes], of a node
  const float* scale;       // [nodes], by node: 1 / sqrt(degree), 0 without neighbours
  const int64_t* chunks;  // [chunk_count + 1] slots of about equal work; the rows before chunks[0] are those to be cut
  int64_t chunk_count;
};

}  // namespace recsparse
