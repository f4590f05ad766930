// THE format of a packed table. Every op decodes rows through this header.
//
// A table has `rows` x `dim` slots; the kept weights lie in one flat array `values`, row-major, columns ascending. The
// index says which slots are kept. It is an array of 64-bit words cut in blocks of one or two cache lines, so that one
// miss tells everything about a row: where its values start and which columns they fill.
//
//   full    no index: row r is values[r * dim, (r + 1) * dim)
//   bits    block = { uint64 base; rows_per_block x ceil(dim / 32) 32-bit mask words }
//           start(row j of the block) = base + popcount of the mask words before it. d = 64: 7 rows in 64 bytes.
//   prefix  block = { uint64 base; 56 x uint8 length (28 x uint16 when dim = 256) }; row keeps its first `length` columns
//   cols8   the same block, and a parallel uint8 array `cols` with the column of each value
//
// `base` counts values, 64-bit; a block's base is the number of kept values in all earlier blocks.
#pragma once

#include <cstdint>

#include "macros.h"

namespace recsparse {

constexpr int kMaxDim = 256;
constexpr int kMaxWords = kMaxDim / 32;

enum class IndexKind : int32_t { full = 0, prefix = 1, bits = 2, cols8 = 3 };

struct Layout {
  IndexKind kind;
  int32_t dim;
  int64_t rows;
};

// Read-only view of a table's index; POD, passed to every kernel by value.
struct TableView {
  Layout layout;
  const uint64_t* index;
  const uint8_t* cols;
};

RS_INLINE int mask_words(int dim) { return (dim + 31) / 32; }

// 64-bit words in a block. Two cache lines where one would waste more than 8 bytes a row (dim in 129..160 and 225..256).
RS_INLINE constexpr int bits_block_words(int words) { return words == 5 || words == 8 ? 16 : 8; }
RS_INLINE constexpr int bits_rows_per_block(int words) { return (bits_block_words(words) - 1) * 2 / words; }
RS_INLINE constexpr int length_rows_per_block(int dim) { return dim < 256 ? 56 : 28; }

RS_INLINE int rows_per_block(const Layout& layout) {
  switch (layout.kind) {
    case IndexKind::bits: return bits_rows_per_block(mask_words(layout.dim));
    case IndexKind::prefix:
    case IndexKind::cols8: return length_rows_per_block(layout.dim);
    default: return 1;
  }
}

RS_INLINE int block_words(const Layout& layout) {
  switch (layout.kind) {
    case IndexKind::bits: return bits_block_words(mask_words(layout.dim));
    case IndexKind::prefix:
    case IndexKind::cols8: return 8;
    default: return 0;
  }
}

RS_INLINE int64_t block_count(const Layout& layout) {
  const int64_t per_block = rows_per_block(layout);
  return layout.kind == IndexKind::full ? 0 : (layout.rows + per_block - 1) / per_block;
}

// The first word of the block of a row.
RS_INLINE int64_t index_word(const Layout& layout, int64_t row) {
  return layout.kind == IndexKind::full ? 0 : row / rows_per_block(layout) * block_words(layout);
}

// Number of 64-bit words of the whole index.
RS_INLINE int64_t index_words(const Layout& layout) { return block_count(layout) * block_words(layout); }

}  // namespace recsparse
