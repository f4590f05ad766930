// spmm for one instruction set; see spmm.h. Include after an isa_*.h.
#pragma once

#include "cpu/gather_rows.h"
#include "cpu/spmm.h"

namespace recsparse::RS_ISA {

// In edges. On Yelp2018, two threads, float32 rows of 64: 16, 32 and 64 took 2.87, 2.73 and 3.01 ms.
constexpr int kSpmmAhead = 32;

template <class T, class Index>
static void spmm_rows(const SpmmArgs<T, Index>& args, int64_t begin, int64_t end) {
  const GraphView<Index>& graph = args.graph;
  const int64_t last = graph.offsets[graph.nodes] - 1;
  for (int64_t slot = begin; slot < end; ++slot) {
    const int64_t node = static_cast<int64_t>(graph.node[slot]);
    const F16 own(graph.scale[node]);
    T* out = args.out + node * args.dim;
    gather_row<true, kSpmmAhead>(graph, args.x, args.dim, graph.offsets[slot], graph.offsets[slot + 1], last,
                                 [&](int64_t c, F16 sum, auto... lanes) { store(out + c, own * sum, lanes...); });
  }
}

template <class T, class Index>
static void spmm_segment(const SpmmArgs<T, Index>& args, const Segment& segment, float* sum) {
  gather_row<true, kSpmmAhead>(args.graph, args.x, args.dim, segment.begin, segment.end, segment.end - 1,
                               [&](int64_t c, F16 part, auto... lanes) { store(sum + c, part, lanes...); });
}

template <class T, class Index>
static void spmm_join(const SpmmArgs<T, Index>& args, int64_t slot, const float* sums, int64_t count) {
  const int64_t node = static_cast<int64_t>(args.graph.node[slot]);
  const F16 own(args.graph.scale[node]);
  T* out = args.out + node * args.dim;
  for_each_vector(args.dim, [&](int64_t c, uint32_t lanes) {
    F16 sum = load(sums + c, lanes);
    for (int64_t k = 1; k < count; ++k) sum = sum + load(sums + k * args.dim + c, lanes);
    store(out + c, own * sum, lanes);
  });
}

}  // namespace recsparse::RS_ISA
