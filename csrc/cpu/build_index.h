// Builds the index of a table from the mask of each row. Two parallel sweeps over fixed chunks of blocks: the first
// counts, the second knows where each chunk's values start and writes.
#pragma once

#include <atomic>
#include <cstring>
#include <vector>

#include "core/rows.h"
#include "cpu/parallel.h"

namespace recsparse {

struct RowMask {
  uint64_t word[kMaxWords / 2];
};

RS_INLINE int row_count(const RowMask& mask) {
  int count = 0;
  for (int i = 0; i < kMaxWords / 2; ++i) count += popcount64(mask.word[i]);
  return count;
}

RS_INLINE bool is_prefix(const RowMask& mask) {
  const int count = row_count(mask);
  for (int i = 0; i < kMaxWords / 2; ++i) {
    if (mask.word[i] != low_bits(count - 64 * i)) return false;
  }
  return true;
}

// The first row that the kind of `layout` cannot hold, or -1: full wants every column, prefix the first ones.
template <class MaskOf>
static int64_t first_misfit(const Layout& layout, int threads, MaskOf mask_of) {
  const bool full = layout.kind == IndexKind::full;
  if (!full && layout.kind != IndexKind::prefix) return -1;
  std::atomic<int64_t> first{layout.rows};
  parallel_for(layout.rows, 4096, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const RowMask mask = mask_of(row);
      if (full ? row_count(mask) == layout.dim : is_prefix(mask)) continue;
      int64_t seen = first.load();
      while (row < seen && !first.compare_exchange_weak(seen, row)) {
      }
      return;
    }
  });
  return first.load() < layout.rows ? first.load() : -1;
}

constexpr int64_t kBlockChunk = 1024;

// Where each chunk of blocks starts in `values`; the last entry is the number of kept weights. mask_of(row) -> RowMask.
// For kind full, which has no blocks, a chunk counts rows instead.
template <class MaskOf>
static std::vector<uint64_t> count_chunks(const Layout& layout, int threads, MaskOf mask_of) {
  const int per_block = rows_per_block(layout);
  const int64_t chunk_rows = kBlockChunk * per_block, chunks = (layout.rows + chunk_rows - 1) / chunk_rows;
  std::vector<uint64_t> starts(chunks + 1, 0);
  parallel_for(chunks, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t last = (chunk + 1) * chunk_rows < layout.rows ? (chunk + 1) * chunk_rows : layout.rows;
      uint64_t kept = 0;
      for (int64_t row = chunk * chunk_rows; row < last; ++row) kept += row_count(mask_of(row));
      starts[chunk + 1] = kept;
    }
  });
  for (int64_t chunk = 0; chunk < chunks; ++chunk) starts[chunk + 1] += starts[chunk];
  return starts;
}

// Writes the blocks and, for cols8, the columns. `starts` is what count_chunks returned for the same masks.
template <class MaskOf>
static void write_index(const Layout& layout, const std::vector<uint64_t>& starts, uint64_t* index, uint8_t* cols,
                        int threads, MaskOf mask_of) {
  if (layout.kind == IndexKind::full) return;
  const int per_block = rows_per_block(layout), words = block_words(layout), mask_bytes = 4 * mask_words(layout.dim);
  const int64_t chunk_rows = kBlockChunk * per_block;
  parallel_for(static_cast<int64_t>(starts.size()) - 1, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t last = (chunk + 1) * chunk_rows < layout.rows ? (chunk + 1) * chunk_rows : layout.rows;
      uint64_t start = starts[chunk];
      for (int64_t row = chunk * chunk_rows; row < last; ++row) {
        uint64_t* block = index + row / per_block * words;
        const int within = static_cast<int>(row % per_block);
        if (within == 0) {
          std::memset(block, 0, 8 * static_cast<size_t>(words));
          block[0] = start;
        }
        const RowMask mask = mask_of(row);
        const int count = row_count(mask);
        char* body = reinterpret_cast<char*>(block + 1);
        if (layout.kind == IndexKind::bits) {
          std::memcpy(body + within * mask_bytes, mask.word, mask_bytes);
        } else if (layout.dim < 256) {
          const uint8_t length = static_cast<uint8_t>(count);
          std::memcpy(body + within, &length, 1);
        } else {
          const uint16_t length = static_cast<uint16_t>(count);
          std::memcpy(body + 2 * within, &length, 2);
        }
        if (layout.kind == IndexKind::cols8) {
          uint8_t* out = cols + start;
          for (int i = 0; i < kMaxWords / 2; ++i) {
            for (uint64_t word = mask.word[i]; word; word &= word - 1) {
              *out++ = static_cast<uint8_t>(64 * i + __builtin_ctzll(word));
            }
          }
        }
        start += count;
      }
    }
  });
}

}  // namespace recsparse
