// Loads of packed rows into sixteen-lane chunks. Include after an isa_*.h.
#pragma once

#include "core/rows.h"

namespace recsparse::RS_ISA {

template <int W>
RS_INLINE int chunk_count(int dim) {
  return W ? 2 * W : (dim + 15) / 16;
}

// Bits of the sixteen columns of chunk c.
template <int W>
RS_INLINE uint32_t chunk_mask(const RowRef<W>& ref, int c) {
  return static_cast<uint32_t>(ref.mask[c >> 2] >> (16 * (c & 3))) & 0xffffu;
}

// Chunk of a row whose kept values of this chunk begin at p.
template <IndexKind K, class T>
RS_INLINE V16<T> load_chunk(const T* p, uint32_t mask) {
  if (K == IndexKind::full || K == IndexKind::prefix) return load(p, mask);
  return expand(p, mask);
}

// Fetches the lines of a row, for reading or (Write) in exclusive state: a line that another core has written last would
// otherwise be asked for twice. Up to three lines without a branch on the length.
template <bool Write = false, class T>
RS_INLINE void prefetch_span(const T* p, uint32_t count) {
  const char* first = reinterpret_cast<const char*>(p);
  const char* last = reinterpret_cast<const char*>(p + (count ? count : 1)) - 1;
  __builtin_prefetch(first, Write);
  __builtin_prefetch(first + 64 < last ? first + 64 : last, Write);
  __builtin_prefetch(last, Write);
  if (last - first > 128) {
    for (const char* line = first + 128; line < last; line += 64) __builtin_prefetch(line, Write);
  }
}

}  // namespace recsparse::RS_ISA
