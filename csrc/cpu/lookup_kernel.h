// lookup for one instruction set; see lookup.h. Include after an isa_*.h.
//
// Cold rows cost one miss for the index block and, once that has arrived, one or two for the values. Both are hidden by
// a software pipeline: the index line of row i + 2 * kAhead and the value lines of row i + kAhead are on their way while
// row i is decoded. Large outputs are written past the caches: nobody reads them before the call returns, and a plain
// store would first read the line that it overwrites.
#pragma once

#include "cpu/lookup.h"
#include "cpu/row_access.h"

namespace recsparse::RS_ISA {

constexpr int kAhead = 32;  // a power of two; enough misses in flight to fill the line buffers of a core

template <class T, IndexKind K, int W>
static BadIds lookup_rows(const LookupArgs<T>& args, bool streaming, bool far, int64_t begin, int64_t end) {
  const TableView table = args.table;
  const int dim = table.layout.dim, chunks = chunk_count<W>(dim);
  const uint64_t rows = static_cast<uint64_t>(table.layout.rows);
  BadIds bad;
  RowRef<W> ring[kAhead];
  const auto id = [&](int64_t i) -> int64_t {
    const int64_t row = args.ids[i];
    return static_cast<uint64_t>(row) < rows ? row : 0;
  };
  const auto place = [](int64_t i) { return static_cast<uint64_t>(i) % kAhead; };
  const auto fetch = [&](int64_t i) {
    if (static_cast<uint64_t>(args.ids[i]) >= rows) {
      if (bad.count++ == 0) bad.first = i;
    }
    const RowRef<W> ref = locate<K, W, Rank>(table, id(i));
    ring[place(i)] = ref;
    prefetch_span(args.values + ref.start, ref.count);
    if (K == IndexKind::cols8) prefetch_span(table.cols + ref.start, ref.count);
  };
  if (K != IndexKind::full) {
    for (int64_t i = begin; i < end && i < begin + 2 * kAhead; ++i) prefetch(index_line<K, W>(table, id(i)));
  }
  for (int64_t i = begin; i < end && i < begin + kAhead; ++i) fetch(i);
  for (int64_t i = begin; i < end; ++i) {
    if (K != IndexKind::full && i + 2 * kAhead < end) prefetch(index_line<K, W>(table, id(i + 2 * kAhead)));
    RowRef<W> ref = ring[place(i)];
    complete<K, W>(table, ref);
    T* out = args.out + i * dim;
    for_each_chunk<K>(args.values + ref.start, ref, chunks, far, [&](int c, Lanes<T> chunk) {
      if (streaming) {
        stream(out + 16 * c, chunk);
      } else {
        store(out + 16 * c, chunk, static_cast<uint32_t>(low_bits(dim - 16 * c) & 0xffff));
      }
    });
    if (i + kAhead < end) fetch(i + kAhead);
  }
  if (streaming) stream_fence();
  return bad;
}

template <class T, IndexKind K, int W>
static void lookup_backward_rows(const LookupBackwardArgs<T>& args, const uint64_t* keys, int shift, int64_t begin,
                                 int64_t end) {
  const int dim = args.table.layout.dim, chunks = chunk_count<W>(dim);
  const uint64_t position = low_bits(shift);
  for (int64_t i = begin; i < end;) {
    const uint64_t row = keys[i] >> shift;
    int64_t next = i + 1;
    while (next < end && keys[next] >> shift == row) ++next;
    RowRef<W> ref = locate<K, W, Rank>(args.table, static_cast<int64_t>(row));
    complete<K, W>(args.table, ref);
    T* out = args.grad_values + ref.start;
    for (int c = 0; c < chunks; ++c) {
      const uint32_t lanes = static_cast<uint32_t>(low_bits(dim - 16 * c) & 0xffff);
      const uint32_t mask = chunk_mask(ref, c);
      Lanes<T> sum(0);
      for (int64_t k = i; k < next; ++k) sum = sum + load(args.grad + (keys[k] & position) * dim + 16 * c, lanes);
      const int kept = popcount64(mask);
      store(out, compress(sum, mask), static_cast<uint32_t>(low_bits(kept)));
      out += kept;
    }
    i = next;
  }
}

template <class T, IndexKind K>
static BadIds lookup_width(const LookupArgs<T>& args, bool streaming, bool far, int64_t begin, int64_t end) {
  switch (mask_words(args.table.layout.dim)) {
    case 2: return lookup_rows<T, K, 2>(args, streaming, far, begin, end);
    case 4: return lookup_rows<T, K, 4>(args, streaming, far, begin, end);
    default: return lookup_rows<T, K, 0>(args, streaming, far, begin, end);
  }
}

template <class T>
static BadIds lookup_forward(const LookupArgs<T>& args, bool streaming, bool far, int64_t begin, int64_t end) {
  switch (args.table.layout.kind) {
    case IndexKind::full: return lookup_width<T, IndexKind::full>(args, streaming, far, begin, end);
    case IndexKind::prefix: return lookup_width<T, IndexKind::prefix>(args, streaming, far, begin, end);
    case IndexKind::bits: return lookup_width<T, IndexKind::bits>(args, streaming, far, begin, end);
    default: return lookup_width<T, IndexKind::cols8>(args, streaming, far, begin, end);
  }
}

template <class T>
static void lookup_backward_kind(const LookupBackwardArgs<T>& args, const uint64_t* keys, int shift, int64_t begin,
                                 int64_t end) {
  switch (args.table.layout.kind) {
    case IndexKind::full: return lookup_backward_rows<T, IndexKind::full, 0>(args, keys, shift, begin, end);
    case IndexKind::prefix: return lookup_backward_rows<T, IndexKind::prefix, 0>(args, keys, shift, begin, end);
    case IndexKind::bits: return lookup_backward_rows<T, IndexKind::bits, 0>(args, keys, shift, begin, end);
    default: return lookup_backward_rows<T, IndexKind::cols8, 0>(args, keys, shift, begin, end);
  }
}

}  // namespace recsparse::RS_ISA
