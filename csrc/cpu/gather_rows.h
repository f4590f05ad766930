// The sum of dense rows over the neighbours of a node: what all propagation is made of. Include after an isa_*.h.
//
// Up to 64 columns are summed in registers at a time; wider rows take several passes over the neighbours' ids, which are
// few bytes beside the rows. The lines of the neighbour kNeighboursAhead further on are asked for, across the ends of
// rows where the next slot's neighbours are wanted next: up to edge `last`.
#pragma once

#include "core/graph.h"
#include "core/rows.h"
#include "cpu/prefetch.h"

namespace recsparse::RS_ISA {

// In edges: the first-level cache holds their rows of 256 bytes three times. spmm on Yelp2018 with 12, one thread,
// took 1.16 (float32) and 1.4 (bfloat16) times as long; 32 lay between.
constexpr int kNeighboursAhead = 64;
constexpr int kGatherColumns = 64;

// sum[c] = the sum over e in [begin, end) of x[neighbour e][c], times the scale of the neighbour if Scale, for the columns
// of `Chunks` vectors, of which the last has `lanes`. x is at the first of them, `stride` values from row to row.
template <int Chunks, bool Scale, bool Whole, class T, class Index>
RS_INLINE void gather_columns(const GraphView<Index>& graph, const T* x, int64_t stride, int64_t begin, int64_t end,
                              int64_t last, uint32_t lanes, float* sum) {
  const Index* neighbours = graph.neighbours;
  F16 acc[Chunks];
  for (int c = 0; c < Chunks; ++c) acc[c] = F16(0.0f);
  for (int64_t e = begin; e < end; ++e) {
    const int64_t ahead = e + kNeighboursAhead < last ? e + kNeighboursAhead : last;
    const char* line = reinterpret_cast<const char*>(x + static_cast<int64_t>(neighbours[ahead]) * stride);
    for (int b = 0; b < Chunks * 16 * static_cast<int>(sizeof(T)); b += 64) prefetch(line + b);
    const T* row = x + static_cast<int64_t>(neighbours[e]) * stride;
    const F16 factor(Scale ? graph.scale[neighbours[e]] : 1.0f);
    for (int c = 0; c < Chunks; ++c) {
      const F16 part = Whole || c + 1 < Chunks ? load(row + 16 * c) : load(row + 16 * c, lanes);
      acc[c] = Scale ? fma(part, factor, acc[c]) : acc[c] + part;
    }
  }
  for (int c = 0; c < Chunks; ++c) store(sum + 16 * c, acc[c]);
}

// The same for `columns` <= kGatherColumns columns; sum has room for kGatherColumns.
template <bool Scale, class T, class Index>
RS_INLINE void gather_block(const GraphView<Index>& graph, const T* x, int64_t stride, int64_t columns, int64_t begin,
                            int64_t end, int64_t last, float* sum) {
  const int chunks = static_cast<int>((columns + 15) / 16);
  const uint32_t lanes = static_cast<uint32_t>(low_bits(static_cast<int>(columns - 16 * (chunks - 1))));
  if (lanes == 0xffff) {
    switch (chunks) {
      case 1: return gather_columns<1, Scale, true>(graph, x, stride, begin, end, last, lanes, sum);
      case 2: return gather_columns<2, Scale, true>(graph, x, stride, begin, end, last, lanes, sum);
      case 3: return gather_columns<3, Scale, true>(graph, x, stride, begin, end, last, lanes, sum);
      default: return gather_columns<4, Scale, true>(graph, x, stride, begin, end, last, lanes, sum);
    }
  }
  switch (chunks) {
    case 1: return gather_columns<1, Scale, false>(graph, x, stride, begin, end, last, lanes, sum);
    case 2: return gather_columns<2, Scale, false>(graph, x, stride, begin, end, last, lanes, sum);
    case 3: return gather_columns<3, Scale, false>(graph, x, stride, begin, end, last, lanes, sum);
    default: return gather_columns<4, Scale, false>(graph, x, stride, begin, end, last, lanes, sum);
  }
}

// Calls each(column, columns, sum) for every block of columns of the sum over the edges [begin, end).
template <bool Scale, class T, class Index, class Each>
RS_INLINE void gather_row(const GraphView<Index>& graph, const T* x, int64_t dim, int64_t begin, int64_t end,
                          Each&& each) {
  alignas(64) float sum[kGatherColumns];
  const int64_t last = graph.offsets[graph.nodes] - 1;
  for (int64_t column = 0; column < dim; column += kGatherColumns) {
    const int64_t columns = dim - column < kGatherColumns ? dim - column : kGatherColumns;
    gather_block<Scale>(graph, x + column, dim, columns, begin, end, last, sum);
    each(column, columns, sum);
  }
}

// Calls each(offset, lanes) for the vectors of `columns` columns.
template <class Each>
RS_INLINE void for_each_vector(int64_t columns, Each&& each) {
  for (int64_t c = 0; c < columns; c += 16)
    each(c, static_cast<uint32_t>(low_bits(static_cast<int>(columns - c)) & 0xffff));
}

}  // namespace recsparse::RS_ISA
