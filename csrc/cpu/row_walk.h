// Rows of a packed table by id, one after the other, fetched ahead of their use. Include after an isa_*.h.
//
// A cold row costs one miss for the index block and, once that has arrived, one or two for the values. A software pipeline
// hides both: the index line of row i + 2 * kWalkAhead and the value lines of row i + kWalkAhead are on their way while
// row i is used.
#pragma once

#include "cpu/row_access.h"

namespace recsparse::RS_ISA {

constexpr int kWalkAhead = 32;  // a power of two; enough misses in flight to fill the line buffers of a core

template <class T, IndexKind K, int W>
class RowWalk {
 public:
  // The ids [begin, end), in order. An id outside the table stands for row 0.
  RS_INLINE_MEMBER RowWalk(const TableView& table, const T* values, const int64_t* ids, int64_t begin, int64_t end)
      : table_(table), values_(values), ids_(ids), at_(begin), end_(end) {
    if (K != IndexKind::full) {
      for (int64_t i = begin; i < end && i < begin + 2 * kWalkAhead; ++i) prefetch(index_line<K, W>(table_, row(i)));
    }
    for (int64_t i = begin; i < end && i < begin + kWalkAhead; ++i) fetch(i);
  }

  RS_INLINE_MEMBER int64_t row(int64_t i) const {
    const int64_t id = ids_[i];
    return static_cast<uint64_t>(id) < static_cast<uint64_t>(table_.layout.rows) ? id : 0;
  }

  RS_INLINE_MEMBER RowRef<W> next() {
    const int64_t i = at_++;
    if (K != IndexKind::full && i + 2 * kWalkAhead < end_) {
      prefetch(index_line<K, W>(table_, row(i + 2 * kWalkAhead)));
    }
    RowRef<W> ref = ring_[place(i)];
    complete<K, W>(table_, ref);
    if (i + kWalkAhead < end_) fetch(i + kWalkAhead);
    return ref;
  }

 private:
  static RS_INLINE_MEMBER uint64_t place(int64_t i) { return static_cast<uint64_t>(i) % kWalkAhead; }

  RS_INLINE_MEMBER void fetch(int64_t i) {
    const RowRef<W> ref = locate<K, W, Rank>(table_, row(i));
    ring_[place(i)] = ref;
    prefetch_span(values_ + ref.start, ref.count);
    if (K == IndexKind::cols8) prefetch_span(table_.cols + ref.start, ref.count);
  }

  const TableView table_;
  const T* values_;
  const int64_t* ids_;
  int64_t at_, end_;
  RowRef<W> ring_[kWalkAhead];
};

}  // namespace recsparse::RS_ISA
