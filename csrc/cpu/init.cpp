#include "cpu/init.h"

#include "core/init.h"
#include "cpu/build_index.h"

namespace recsparse {

static RowMask prefix_mask(int count) {
  RowMask mask;
  for (int i = 0; i < kMaxWords / 2; ++i) mask.word[i] = low_bits(count - 64 * i);
  return mask;
}

// Visits the random rank of every slot of the rows [begin, end).
template <class Visit>
static void visit_ranks(const Layout& layout, uint64_t seed, int64_t begin, int64_t end, Visit visit) {
  for (int64_t row = begin; row < end; ++row) {
    for (int col = 0; col < layout.dim; col += 4) {
      uint32_t rank[4];
      init_mask_ranks(seed, row, col / 4, rank);
      for (int k = 0; k < 4 && col + k < layout.dim; ++k) visit(row, col + k, rank[k]);
    }
  }
}

// The largest threshold with at most `kept` ranks below it, by two 16-bit histograms.
static uint64_t rank_threshold(const Layout& layout, int64_t kept, uint64_t seed, int threads) {
  uint64_t threshold = 0;
  int64_t below = 0;
  for (int level = 0; level < 2; ++level) {
    std::vector<std::vector<int64_t>> parts(threads, std::vector<int64_t>(1 << 16, 0));
    parallel_region(threads, [&](int rank) {
      const Range rows = static_range(layout.rows, 1024, rank, threads);
      std::vector<int64_t>& counts = parts[rank];
      visit_ranks(layout, seed, rows.begin, rows.end, [&](int64_t, int, uint32_t value) {
        if (level == 0) {
          ++counts[value >> 16];
        } else if (value >> 16 == threshold >> 16) {
          ++counts[value & 0xffff];
        }
      });
    });
    const uint64_t unit = level == 0 ? 1ull << 16 : 1;
    for (int bucket = 0; bucket < 1 << 16; ++bucket) {
      int64_t count = 0;
      for (const auto& part : parts) count += part[bucket];
      if (below + count > kept) break;
      below += count;
      threshold += unit;
    }
    if (threshold == 1ull << 32) break;
  }
  return threshold;
}

int64_t init_index(const Layout& layout, InitStart start, int64_t kept, uint64_t seed, uint64_t* index, uint8_t* cols,
                   int threads) {
  const auto build = [&](auto mask_of) {
    const std::vector<uint64_t> starts = count_chunks(layout, threads, mask_of);
    write_index(layout, starts, index, cols, threads, mask_of);
    return static_cast<int64_t>(starts.back());
  };
  if (start == InitStart::full) {
    return build([&](int64_t) { return prefix_mask(layout.dim); });
  }
  if (start == InitStart::prefix) {
    const unsigned __int128 rows = static_cast<unsigned __int128>(layout.rows);
    return build([&](int64_t row) {
      const unsigned __int128 r = static_cast<unsigned __int128>(row), k = static_cast<unsigned __int128>(kept);
      return prefix_mask(static_cast<int>((r + 1) * k / rows - r * k / rows));
    });
  }
  const uint64_t threshold = rank_threshold(layout, kept, seed, threads);
  return build([&](int64_t row) {
    RowMask mask = {};
    visit_ranks(layout, seed, row, row + 1, [&](int64_t, int col, uint32_t rank) {
      mask.word[col >> 6] |= static_cast<uint64_t>(rank < threshold) << (col & 63);
    });
    return mask;
  });
}

template <class T>
void init_values(const TableView& table, uint64_t seed, double std, T* values, int threads) {
  const float scale = static_cast<float>(std / kNormalUnit);
  parallel_for(table.layout.rows, 4096, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const RowRef<0> ref = read_row(table, row);
      T* out = values + ref.start;
      for (int i = 0; i < RowRef<0>::kMaskWords64; ++i) {
        for (uint64_t word = ref.mask[i]; word; word &= word - 1) {
          *out++ = narrow(T{}, init_value(seed, row, 64 * i + __builtin_ctzll(word), scale));
        }
      }
    }
  });
}

template void init_values<float>(const TableView&, uint64_t, double, float*, int);
template void init_values<Half>(const TableView&, uint64_t, double, Half*, int);
template void init_values<BFloat16>(const TableView&, uint64_t, double, BFloat16*, int);

}  // namespace recsparse
