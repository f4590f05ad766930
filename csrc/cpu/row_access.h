// Loads of packed rows into sixteen-lane chunks. Include after an isa_*.h.
#pragma once

#include "core/rows.h"
#include "cpu/prefetch.h"

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

// The first n values at p (n <= 16), of a table that is `far` (see is_far). T is the type that they are stored in.
template <class T>
RS_INLINE Lanes<T> load_values(const T* p, int n, bool far) {
  return far ? load_first(p, n) : load(p, static_cast<uint32_t>(low_bits(n)));
}
template <class T>
RS_INLINE void store_values(T* p, Lanes<T> a, int n, bool far) {
  far ? store_first(p, a, n) : store(p, a, static_cast<uint32_t>(low_bits(n)));
}

// The same for updated weights, which are rounded stochastically where T is smaller than a float: `key` is that of the
// row, `position` says which of the row's kept weights goes to p.
template <class T>
RS_INLINE void store_weights(T* p, F16 weights, int n, bool far, RoundingKey key, uint32_t position) {
  store_values(p, round_stochastic(T{}, weights, key, position), n, far);
}

// Chunk of a row whose kept values of this chunk begin at p.
template <IndexKind K, class T>
RS_INLINE Lanes<T> load_chunk(const T* p, uint32_t mask, bool far) {
  if (K == IndexKind::full || K == IndexKind::prefix) return load(p, mask);
  return far ? expand(load_first(p, popcount64(mask)), mask) : expand(p, mask);
}

// Calls each(c, chunk) for the chunks of a row in order. Vectors load a short row once.
template <IndexKind K, int W, class T, class Each>
RS_INLINE void for_each_chunk(const T* p, const RowRef<W>& ref, int chunks, bool far, Each&& each) {
  if constexpr (kVectors && (K == IndexKind::bits || K == IndexKind::cols8)) {
    if (ref.count < 16) {
      const Lanes<T> row = load_values(p, static_cast<int>(ref.count), far);
      int before = 0;
      for (int c = 0; c < chunks; ++c) {
        const uint32_t mask = chunk_mask(ref, c);
        each(c, expand_from(row, before, mask));
        before += popcount64(mask);
      }
      return;
    }
  }
  for (int c = 0; c < chunks; ++c) {
    const uint32_t mask = chunk_mask(ref, c);
    each(c, load_chunk<K>(p, mask, far));
    p += popcount64(mask);
  }
}

// Fetches the lines of `count` values, for reading or for writing: up to `Lines` (2 or 3) without a branch on the length.
template <bool Write = false, int Lines = 2, class T>
RS_INLINE void prefetch_span(const T* p, uint32_t count) {
  const auto fetch = [](const char* line) { Write ? prefetch_write(line) : prefetch(line); };
  const char* first = reinterpret_cast<const char*>(p);
  const char* last = reinterpret_cast<const char*>(p + (count ? count : 1)) - 1;
  fetch(first);
  if (Lines == 3) fetch(first + 64 < last ? first + 64 : last);
  fetch(last);
  if (last - first > 64 * (Lines - 1)) {
    for (const char* line = first + 64 * (Lines - 1); line < last; line += 64) fetch(line);
  }
}

}  // namespace recsparse::RS_ISA
