// The sum of dense rows over the neighbours of a node: what all propagation is made of. Include after an isa_*.h.
//
// Up to 64 columns are summed in registers at a time; wider rows take several passes over the neighbours' ids, which are
// few bytes beside the rows. The lines of the neighbour `Ahead` edges further on are asked for, across the ends of
// rows where the next slot's neighbours are wanted next: up to edge `last`.
#pragma once

#include "core/graph.h"
#include "core/rows.h"
#include "cpu/bfloat16_pairs.h"
#include "cpu/prefetch.h"

namespace recsparse::RS_ISA {

constexpr int kGatherColumns = 64;

// Sums x[neighbour e][c] over e in [begin, end), times the scale of the neighbour if Scale, for the columns of `Chunks`
// vectors, of which the last has `lanes`, and calls each(c, sums) for whole vectors and each(c, sums, lanes) for a last
// one that is not (its other lanes are 0). x is at the first column, `stride` values from row to row.
template <int Chunks, bool Scale, bool Whole, int Ahead, class T, class Index, class Each>
RS_INLINE void gather_columns(const GraphView<Index>& graph, const T* x, int64_t stride, int64_t begin, int64_t end,
                              int64_t last, uint32_t lanes, Each&& each) {
  constexpr bool kPairs = kColumnPairs<T> && Whole && Chunks % 2 == 0;
  const Index* neighbours = graph.neighbours;
  F16 acc[Chunks];
  for (int c = 0; c < Chunks; ++c) acc[c] = F16(0.0f);
  for (int64_t e = begin; e < end; ++e) {
    const int64_t ahead = e + Ahead < last ? e + Ahead : last;
    const char* line = reinterpret_cast<const char*>(x + static_cast<int64_t>(neighbours[ahead]) * stride);
    for (int b = 0; b < Chunks * 16 * static_cast<int>(sizeof(T)); b += 64) prefetch(line + b);
    const T* row = x + static_cast<int64_t>(neighbours[e]) * stride;
    const F16 factor(Scale ? graph.scale[neighbours[e]] : 1.0f);
    const auto add = [&](F16 part, F16& sum) { sum = Scale ? fma(part, factor, sum) : sum + part; };
    if constexpr (kPairs) {
      for (int c = 0; c < Chunks; c += 2) {
        const ColumnPair parts = load_pairs(row + 16 * c);
        add(parts.even, acc[c]);
        add(parts.odd, acc[c + 1]);
      }
    } else {
      for (int c = 0; c < Chunks; ++c) {
        add(Whole || c + 1 < Chunks ? load(row + 16 * c) : load(row + 16 * c, lanes), acc[c]);
      }
    }
  }
  if constexpr (kPairs) {
    for (int c = 0; c < Chunks; c += 2) join_pairs(acc[c], acc[c + 1]);
  }
  for (int c = 0; c + 1 < Chunks; ++c) each(16 * c, acc[c]);
  if constexpr (Whole) {
    each(16 * (Chunks - 1), acc[Chunks - 1]);
  } else {
    each(16 * (Chunks - 1), acc[Chunks - 1], lanes);
  }
}

// The same for `columns` <= kGatherColumns columns.
template <bool Scale, int Ahead, class T, class Index, class Each>
RS_INLINE void gather_block(const GraphView<Index>& graph, const T* x, int64_t stride, int64_t columns, int64_t begin,
                            int64_t end, int64_t last, Each&& each) {
  const int chunks = static_cast<int>((columns + 15) / 16);
  const uint32_t lanes = static_cast<uint32_t>(low_bits(static_cast<int>(columns - 16 * (chunks - 1))));
  if (lanes == 0xffff) {
    switch (chunks) {
      case 1: return gather_columns<1, Scale, true, Ahead>(graph, x, stride, begin, end, last, lanes, each);
      case 2: return gather_columns<2, Scale, true, Ahead>(graph, x, stride, begin, end, last, lanes, each);
      case 3: return gather_columns<3, Scale, true, Ahead>(graph, x, stride, begin, end, last, lanes, each);
      default: return gather_columns<4, Scale, true, Ahead>(graph, x, stride, begin, end, last, lanes, each);
    }
  }
  switch (chunks) {
    case 1: return gather_columns<1, Scale, false, Ahead>(graph, x, stride, begin, end, last, lanes, each);
    case 2: return gather_columns<2, Scale, false, Ahead>(graph, x, stride, begin, end, last, lanes, each);
    case 3: return gather_columns<3, Scale, false, Ahead>(graph, x, stride, begin, end, last, lanes, each);
    default: return gather_columns<4, Scale, false, Ahead>(graph, x, stride, begin, end, last, lanes, each);
  }
}

// The same for all columns of a row.
template <bool Scale, int Ahead, class T, class Index, class Each>
RS_INLINE void gather_row(const GraphView<Index>& graph, const T* x, int64_t dim, int64_t begin, int64_t end,
                          int64_t last, Each&& each) {
  for (int64_t column = 0; column < dim; column += kGatherColumns) {
    const int64_t columns = dim - column < kGatherColumns ? dim - column : kGatherColumns;
    gather_block<Scale, Ahead>(graph, x + column, dim, columns, begin, end, last,
                               [&](int c, F16 sum, auto... lanes) { each(column + c, sum, lanes...); });
  }
}

// Calls each(offset, lanes) for the vectors of `columns` columns.
template <class Each>
RS_INLINE void for_each_vector(int64_t columns, Each&& each) {
  for (int64_t c = 0; c < columns; c += 16)
    each(c, static_cast<uint32_t>(low_bits(static_cast<int>(columns - c)) & 0xffff));
}

}  // namespace recsparse::RS_ISA
