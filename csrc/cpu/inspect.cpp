#include "cpu/inspect.h"

#include <atomic>
#include <cmath>
#include <vector>

#include "core/rows.h"
#include "cpu/parallel.h"

namespace recsparse {

namespace {

constexpr int64_t kRowGrain = 1 << 14;

// The first row (or other position) that a parallel scan found at fault.
class FirstFault {
 public:
  void report(int64_t at) {
    int64_t seen = at_.load();
    while (at < seen && !at_.compare_exchange_weak(seen, at)) {
    }
  }
  bool found() const { return at_.load() != INT64_MAX; }
  std::string at() const { return std::to_string(at_.load()); }

 private:
  std::atomic<int64_t> at_{INT64_MAX};
};

int64_t kept_weights(const TableView& table) { return static_cast<int64_t>(values_before(table, table.layout.rows)); }

}  // namespace

void row_counts(const TableView& table, int64_t* counts, int threads) {
  parallel_for(table.layout.rows, kRowGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) counts[row] = read_span(table, row).count;
  });
}

void column_mask(const TableView& table, int column, uint8_t* kept, int threads) {
  parallel_for(table.layout.rows, kRowGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) kept[row] = read_row(table, row).mask[column >> 6] >> (column & 63) & 1;
  });
}

std::string check_index(const TableView& table, int64_t capacity, int threads) {
  const Layout& layout = table.layout;
  if (layout.kind == IndexKind::full || layout.rows == 0) return "";
  const int per_block = rows_per_block(layout), words = block_words(layout);
  FirstFault length, start;
  parallel_for(block_count(layout), 256, threads, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      uint64_t expected = table.index[block * words];
      const int64_t last = (block + 1) * per_block < layout.rows ? (block + 1) * per_block : layout.rows;
      for (int64_t row = block * per_block; row < last; ++row) {
        const RowRef<0> ref = read_span(table, row);
        bool beyond = static_cast<int>(ref.count) > layout.dim;
        if (layout.kind == IndexKind::bits) {
          for (int i = 0; i < RowRef<0>::kMaskWords64; ++i)
            beyond |= (ref.mask[i] & ~low_bits(layout.dim - 64 * i)) != 0;
        }
        if (beyond) length.report(row);
        expected += ref.count;
      }
      if (block + 1 < block_count(layout) && table.index[(block + 1) * words] != expected) start.report(block + 1);
    }
  });
  const std::string dim = std::to_string(layout.dim);
  if (length.found()) return "row " + length.at() + " keeps columns beyond dim = " + dim;
  if (table.index[0] != 0) return "index block 0 does not start at 0";
  if (start.found()) return "index block " + start.at() + " does not start where the one before it ends";
  const int64_t kept = kept_weights(table);
  if (kept > capacity) {
    return std::to_string(kept) + " weights are kept, more than capacity " + std::to_string(capacity);
  }
  if (layout.kind != IndexKind::cols8) return "";
  FirstFault column;
  parallel_for(layout.rows, kRowGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const RowRef<0> ref = read_span(table, row);
      int before = -1;
      for (uint32_t i = 0; i < ref.count; ++i) {
        const int col = table.cols[ref.start + i];
        if (col <= before || col >= layout.dim) column.report(row);
        before = col;
      }
    }
  });
  if (column.found()) return "the columns of row " + column.at() + " do not ascend within 0.." + dim;
  return "";
}

}  // namespace recsparse
