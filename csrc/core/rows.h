// Decoding of one row: where its values start, how many there are, which columns they fill.
//
// W is the number of 32-bit mask words of a row when it is known at compile time (2: dim 33..64, 4: dim 97..128), or 0
// for any dim up to 256. Everything is branch-free apart from the length of the row, because the rows that a batch looks
// up come in random order and a mispredicted branch costs as much as the decoding.
#pragma once

#include <cstdint>
#include <cstring>

#include "row_layout.h"

namespace recsparse {

template <int W>
struct RowRef {
  static constexpr int kMaskWords64 = W == 0 ? kMaxWords / 2 : (W + 1) / 2;
  uint64_t start;  // index of the first value
  uint32_t count;  // kept columns
  uint64_t mask[kMaskWords64];

  RowRef() = default;
  RS_INLINE_MEMBER RowRef(const RowRef& other) { *this = other; }
  // Member by member. g++ would copy the struct in 16 bytes from where its members have just been stored, and a load that
  // spans two stores waits until both are in the cache: behind them, for the index line of the row that was located.
  RS_INLINE_MEMBER RowRef& operator=(const RowRef& other) {
    start = other.start;
    count = other.count;
    for (int i = 0; i < kMaskWords64; ++i) mask[i] = other.mask[i];
    return *this;
  }
};

// Where the processor cannot count bits, the builtin is a call into libgcc, which looks bytes up in a table.
#if defined(__x86_64__) && !defined(__POPCNT__) && !defined(__CUDA_ARCH__)
constexpr bool kCountsBits = false;
#else
constexpr bool kCountsBits = true;
#endif

// Set bits of each byte, in that byte.
RS_INLINE uint64_t popcount_bytes(uint64_t x) {
  x -= x >> 1 & 0x5555555555555555ull;
  x = (x & 0x3333333333333333ull) + (x >> 2 & 0x3333333333333333ull);
  return (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0full;
}

RS_INLINE int popcount64(uint64_t x) {
#if defined(__CUDA_ARCH__)
  return __popcll(x);
#else
  return kCountsBits ? __builtin_popcountll(x) : static_cast<int>(popcount_bytes(x) * 0x0101010101010101ull >> 56);
#endif
}

// Low `n` bits of a 64-bit word set, n clamped to 0..64.
RS_INLINE uint64_t low_bits(int n) { return n >= 64 ? ~0ull : n <= 0 ? 0ull : (1ull << n) - 1; }

template <IndexKind K, int W>
RS_INLINE int rows_in_block(const Layout& layout) {
  if (K == IndexKind::bits) return W ? bits_rows_per_block(W) : bits_rows_per_block(mask_words(layout.dim));
  return W ? 56 : length_rows_per_block(layout.dim);
}

// The cache line that `locate` reads first, for prefetching.
template <IndexKind K, int W>
RS_INLINE const uint64_t* index_line(const TableView& table, int64_t row) {
  if (K == IndexKind::full) return table.index;
  const int words = K == IndexKind::bits ? bits_block_words(W ? W : mask_words(table.layout.dim)) : 8;
  return table.index + row / rows_in_block<K, W>(table.layout) * words;
}

// The two sums over a block that say how many values lie before a row. An instruction set may bring better ones.
struct ScalarRank {
  // Set bits in the first `words` 32-bit mask words of a bits block of `lines` cache lines.
  RS_INLINE_MEMBER static uint64_t mask_bits(const uint64_t* block, int words, int lines) {
    uint64_t rank = 0, bytes = 0;  // the counts of a byte: at most 8 bits in each of 15 words
    for (int i = 0; i < 8 * lines - 1; ++i) {
      const uint64_t word = block[1 + i] & low_bits(32 * (words - 2 * i));
      if (kCountsBits) {
        rank += popcount64(word);
      } else {
        bytes += popcount_bytes(word);
      }
    }
    if (kCountsBits) return rank;
    return ((bytes & 0x00ff00ff00ff00ffull) + (bytes >> 8 & 0x00ff00ff00ff00ffull)) * 0x0001000100010001ull >> 48;
  }

  // Sum of the first `n` row lengths (bytes, or 16-bit when dim = 256), eight bytes at a time.
  RS_INLINE_MEMBER static uint64_t lengths(const uint64_t* block, int n, bool wide) {
    const int bits = n * (wide ? 16 : 8);
    uint64_t sum = 0;
    for (int i = 0; i < 7; ++i) {
      const uint64_t word = block[1 + i] & low_bits(bits - 64 * i);
      const uint64_t pairs = wide ? word : (word & 0x00ff00ff00ff00ffull) + ((word >> 8) & 0x00ff00ff00ff00ffull);
      sum += (pairs * 0x0001000100010001ull) >> 48;
    }
    return sum;
  }
};

// Start, count and (except for cols8, see `complete`) the mask of a row.
template <IndexKind K, int W, class Rank = ScalarRank>
RS_INLINE RowRef<W> locate(const TableView& table, int64_t row) {
  RowRef<W> ref;
  const int dim = table.layout.dim;
  constexpr int kMask = RowRef<W>::kMaskWords64;
  if (K == IndexKind::full) {
    ref.start = static_cast<uint64_t>(row) * dim;
    ref.count = dim;
    for (int i = 0; i < kMask; ++i) ref.mask[i] = low_bits(dim - 64 * i);
    return ref;
  }
  const int per_block = rows_in_block<K, W>(table.layout);
  const int within = static_cast<int>(row % per_block);
  const uint64_t* block = index_line<K, W>(table, row);
  if (K == IndexKind::bits) {
    const int words = W ? W : mask_words(dim);
    const int before = within * words;  // mask words of the block's earlier rows
    ref.start = block[0] + Rank::mask_bits(block, before, bits_block_words(words) / 8);
    ref.count = 0;
    const char* first = reinterpret_cast<const char*>(block + 1) + 4 * before;
    for (int i = 0; i < kMask; ++i) {
      ref.mask[i] = 0;
      if (2 * i + 1 < words) {
        std::memcpy(&ref.mask[i], first + 8 * i, 8);
      } else if (2 * i < words) {
        std::memcpy(&ref.mask[i], first + 8 * i, 4);
      }
      ref.count += popcount64(ref.mask[i]);
    }
    return ref;
  }
  const bool wide = W == 0 && dim == 256;
  ref.start = block[0] + Rank::lengths(block, within, wide);
  const uint8_t* lengths = reinterpret_cast<const uint8_t*>(block + 1);
  ref.count = lengths[within];
  if (wide) {
    uint16_t length;
    std::memcpy(&length, lengths + 2 * within, 2);
    ref.count = length;
  }
  for (int i = 0; i < kMask; ++i) ref.mask[i] = low_bits(static_cast<int>(ref.count) - 64 * i);
  return ref;
}

// cols8 only: builds the mask from the row's columns, which lie in another cache line than the block.
template <IndexKind K, int W>
RS_INLINE void complete(const TableView& table, RowRef<W>& ref) {
  if (K != IndexKind::cols8) return;
  for (int i = 0; i < RowRef<W>::kMaskWords64; ++i) ref.mask[i] = 0;
  const uint8_t* cols = table.cols + ref.start;
  for (uint32_t i = 0; i < ref.count; ++i) {
    const int col = cols[i];
    ref.mask[RowRef<W>::kMaskWords64 == 1 ? 0 : col >> 6] |= 1ull << (col & 63);
  }
}

// Any kind, any dim: for code that is not hot.
RS_INLINE RowRef<0> read_row(const TableView& table, int64_t row) {
  switch (table.layout.kind) {
    case IndexKind::bits: return locate<IndexKind::bits, 0>(table, row);
    case IndexKind::prefix: return locate<IndexKind::prefix, 0>(table, row);
    case IndexKind::cols8: {
      RowRef<0> ref = locate<IndexKind::cols8, 0>(table, row);
      complete<IndexKind::cols8, 0>(table, ref);
      return ref;
    }
    default: return locate<IndexKind::full, 0>(table, row);
  }
}

// The same without the columns of cols8.
RS_INLINE RowRef<0> read_span(const TableView& table, int64_t row) {
  return table.layout.kind == IndexKind::cols8 ? locate<IndexKind::cols8, 0>(table, row) : read_row(table, row);
}

// Number of values of the rows before `row`, 0 <= row <= rows.
RS_INLINE uint64_t values_before(const TableView& table, int64_t row) {
  if (row < table.layout.rows) return read_span(table, row).start;
  if (row == 0) return 0;
  const RowRef<0> last = read_span(table, row - 1);
  return last.start + last.count;
}

}  // namespace recsparse
