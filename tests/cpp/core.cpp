// Checks of csrc/core that a tensor of a testable size cannot make: rows and values beyond 2^31, and known answers.
// Built and run by test_core.py. Each row is addressed through a pointer that is moved back by the bytes before its
// block, so that a block of one cache line stands in for a table of hundreds of gigabytes.
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "core/half.h"
#include "core/init.h"
#include "core/rounding.h"
#include "core/rows.h"

using namespace recsparse;

static int failures = 0;

#define CHECK(condition, ...)                                                 \
  do {                                                                        \
    if (!(condition)) {                                                       \
      std::printf("%s:%d: %s", __FILE__, __LINE__, #condition " is false: "); \
      std::printf(__VA_ARGS__);                                               \
      std::printf("\n");                                                      \
      if (++failures > 20) std::exit(1);                                      \
    }                                                                         \
  } while (0)

// A block whose base is `base`, with random rows, and what each row holds.
struct Block {
  std::vector<uint64_t> words;
  std::vector<std::vector<int>> columns;  // of each row
};

static Block random_block(const Layout& layout, uint64_t base, std::mt19937& random) {
  Block block;
  block.words.assign(block_words(layout), 0);
  block.words[0] = base;
  uint8_t* body = reinterpret_cast<uint8_t*>(block.words.data() + 1);
  for (int row = 0; row < rows_per_block(layout); ++row) {
    std::vector<int> columns;
    const int sort = static_cast<int>(random() % 4);  // empty, full, or a share of the columns
    const int length = sort == 0 ? 0 : sort == 1 ? layout.dim : static_cast<int>(random() % (layout.dim + 1));
    for (int col = 0; col < layout.dim; ++col) {
      const bool prefix = col < length;
      const bool random_bit = sort == 1 || (sort > 1 && random() % 3 == 0);
      if (layout.kind == IndexKind::bits ? random_bit : prefix) columns.push_back(col);
    }
    if (layout.kind == IndexKind::bits) {
      for (int col : columns) body[row * 4 * mask_words(layout.dim) + col / 8] |= 1 << (col % 8);
    } else if (layout.dim < 256) {
      body[row] = static_cast<uint8_t>(columns.size());
    } else {
      body[2 * row] = static_cast<uint8_t>(columns.size());
      body[2 * row + 1] = static_cast<uint8_t>(columns.size() >> 8);
    }
    block.columns.push_back(columns);
  }
  return block;
}

template <int W>
static bool has_columns(const RowRef<W>& ref, const std::vector<int>& columns) {
  uint64_t mask[RowRef<W>::kMaskWords64] = {};
  for (int col : columns) mask[col / 64] |= 1ull << (col % 64);
  return std::memcmp(mask, ref.mask, sizeof mask) == 0;
}

template <IndexKind K, int W>
static void check_block(int dim, int64_t first_row, uint64_t base, std::mt19937& random) {
  const Layout layout{K, dim, first_row + rows_per_block(Layout{K, dim, 1})};
  const Block block = random_block(layout, base, random);
  const int64_t words_before = first_row / rows_per_block(layout) * block_words(layout);
  const uintptr_t origin = reinterpret_cast<uintptr_t>(block.words.data()) - 8 * static_cast<uintptr_t>(words_before);
  const TableView table{layout, reinterpret_cast<const uint64_t*>(origin), nullptr};
  uint64_t start = base;
  for (size_t j = 0; j < block.columns.size(); ++j) {
    const int64_t row = first_row + static_cast<int64_t>(j);
    const RowRef<W> ref = locate<K, W>(table, row);
    CHECK((index_line<K, W>(table, row) == block.words.data()), "dim %d row %" PRId64, dim, row);
    CHECK(ref.start == start, "dim %d row %" PRId64 ": %" PRIu64 ", expected %" PRIu64, dim, row, ref.start, start);
    CHECK(ref.count == block.columns[j].size(), "dim %d row %" PRId64, dim, row);
    CHECK((K == IndexKind::cols8 || has_columns<W>(ref, block.columns[j])), "dim %d row %" PRId64, dim, row);
    start += block.columns[j].size();
  }
}

// Blocks of a small table, and of one with more than 2^33 rows whose values start behind 2^35.
template <IndexKind K>
static void check_kind(std::mt19937& random) {
  for (int dim = 1; dim <= kMaxDim; ++dim) {
    const int64_t per_block = rows_per_block(Layout{K, dim, 1});
    for (int64_t first : {int64_t{0}, per_block, (int64_t{1} << 33) / per_block * per_block}) {
      const uint64_t base = first > per_block ? (1ull << 35) + 12345 : static_cast<uint64_t>(first);
      check_block<K, 0>(dim, first, base, random);
      if (mask_words(dim) == 2) check_block<K, 2>(dim, first, base, random);
      if (mask_words(dim) == 4) check_block<K, 4>(dim, first, base, random);
    }
  }
}

static void check_full() {
  const int64_t row = int64_t{10} * 1000 * 1000 * 1000;
  const TableView table{Layout{IndexKind::full, 200, row + 1}, nullptr, nullptr};
  const RowRef<0> ref = read_row(table, row);
  CHECK(ref.start == 2000ull * 1000 * 1000 * 1000 && ref.count == 200, "%" PRIu64, ref.start);
  CHECK(ref.mask[2] == ~0ull && ref.mask[3] == 0xff, "%" PRIx64, ref.mask[3]);
}

static void check_complete() {
  const uint8_t cols[] = {9, 9, 0, 63, 64, 200, 255};
  const TableView table{Layout{IndexKind::cols8, 256, 1}, nullptr, cols};
  RowRef<0> ref;
  ref.start = 2;
  ref.count = 5;
  complete<IndexKind::cols8, 0>(table, ref);
  CHECK((has_columns<0>(ref, {0, 63, 64, 200, 255})), "%" PRIx64, ref.mask[0]);
}

static void check_layout() {
  const int64_t rows = 1000 * 1000 * 1000;
  CHECK(index_words(Layout{IndexKind::bits, 64, rows}) == int64_t{142857143} * 8, "bits");
  CHECK(index_words(Layout{IndexKind::bits, 256, rows}) == (rows + 2) / 3 * 16, "bits, two lines a block");
  CHECK(index_words(Layout{IndexKind::prefix, 64, rows}) == int64_t{17857143} * 8, "prefix");
  CHECK(index_words(Layout{IndexKind::cols8, 256, rows}) == int64_t{35714286} * 8, "cols8");
  CHECK(index_words(Layout{IndexKind::full, 64, rows}) == 0, "full");
}

// The known-answer vectors of Random123 (philox4x32-10), as far as the counter's layout can express them.
static void check_philox() {
  const Philox4 zeros = philox(0, 0, 0, 0);
  CHECK(zeros.w[0] == 0x6627e8d5 && zeros.w[1] == 0xe169c58d && zeros.w[2] == 0xbc57ac4c && zeros.w[3] == 0x9b00dbd8,
        "%08x", zeros.w[0]);
  const Philox4 ones = philox(~0ull, ~0ull, ~0u, ~0u);
  CHECK(ones.w[0] == 0x408f276d && ones.w[1] == 0x41c83b0e && ones.w[2] == 0xa20bc7c6 && ones.w[3] == 0x6d5451fd,
        "%08x", ones.w[0]);
  const Philox4 pi = philox(0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x13198a2e, 0x03707344);
  CHECK(pi.w[0] == 0xd16cfe09 && pi.w[1] == 0x94fdcceb && pi.w[2] == 0x5001e420 && pi.w[3] == 0x24126ea1, "%08x",
        pi.w[0]);
  CHECK(bounded32(~0u, 10) == 9 && bounded32(0, 10) == 0, "bounded32");
  CHECK(bounded64(~0ull, 1ull << 40) == (1ull << 40) - 1, "bounded64");
}

static void check_init() {
  int same = 0;
  uint32_t low[4], high[4];
  for (int col = 0; col < 64; ++col)
    same += init_value(7, 1, col, 1.0f) == init_value(7, (int64_t{1} << 32) + 1, col, 1.0f);
  init_mask_ranks(7, 1, 0, low);
  init_mask_ranks(7, (int64_t{1} << 32) + 1, 0, high);
  CHECK(same < 4 && low[0] != high[0], "rows 2^32 apart share their draws");
}

// A 16-bit pattern by the definition of its type: sign, exponent and fraction.
static double value_of(uint16_t bits, int fraction_bits, int bias) {
  const int fraction = bits & ((1 << fraction_bits) - 1), exponent = (bits & 0x7fff) >> fraction_bits;
  const double magnitude = exponent ? std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits)
                                    : std::ldexp(fraction, 1 - bias - fraction_bits);
  return bits >> 15 ? -magnitude : magnitude;
}

// Every pattern, and what lies between each pattern and its successor.
template <class T>
static void check_half(int fraction_bits, int bias, uint16_t infinity, int random_bits) {
  for (uint32_t pattern = 0; pattern < 1 << 16; ++pattern) {
    const T stored{static_cast<uint16_t>(pattern)};
    const uint16_t magnitude = pattern & 0x7fff;
    const float wide = widen(stored);
    if (magnitude > infinity) {
      CHECK(std::isnan(wide) && (narrow(T{}, wide).bits & 0x7fff) > infinity, "%04x", pattern);
      CHECK(std::isnan(round_stochastic(T{}, wide, ~0u)), "%04x", pattern);
      continue;
    }
    CHECK(narrow(T{}, wide).bits == pattern, "%04x", pattern);
    CHECK(float_bits(round_stochastic(T{}, wide, ~0u)) == float_bits(wide), "%04x", pattern);
    if (magnitude == infinity) {
      CHECK(std::isinf(wide) && std::signbit(wide) == (pattern >> 15 != 0), "%04x", pattern);
      continue;
    }
    CHECK(wide == value_of(stored.bits, fraction_bits, bias), "%04x is %g", pattern, wide);
    const bool last = magnitude + 1 == infinity;
    const double next = value_of(static_cast<uint16_t>(pattern + 1), fraction_bits, bias), step = next - wide;
    for (double part : {0.125, 0.5, 0.875}) {
      const float x = static_cast<float>(wide + part * step);
      const bool up = part > 0.5 || (part == 0.5 && (pattern & 1));
      CHECK(narrow(T{}, x).bits == pattern + up, "%04x + %g", pattern, part);
      const float below = round_stochastic(T{}, x, 0), above = round_stochastic(T{}, x, ~0u);
      CHECK(below == wide, "%04x + %g: %g", pattern, part, below);
      CHECK(above == (last ? wide : static_cast<float>(next)), "%04x + %g: %g", pattern, part, above);
      if (last) continue;
      const uint32_t fine = magnitude >> fraction_bits || random_bits == 16 ? random_bits : 21;
      const uint32_t words = 1u << fine, least = static_cast<uint32_t>((1 - part) * words);
      CHECK(round_stochastic(T{}, x, least) == above && round_stochastic(T{}, x, least - 1) == below,
            "%04x + %g: the share of words that round up is not %g", pattern, part, part);
    }
  }
  CHECK(narrow(T{}, 3e38f).bits == (random_bits == 16 ? 0x7f62 : 0x7c00), "%04x", narrow(T{}, 3e38f).bits);
}

static void check_rounding_bits() {
  const RoundingKey key = rounding_key(rounding_step(7, 1), 5);
  CHECK(key.bits != rounding_key(rounding_step(7, 1), 5 + (int64_t{1} << 32)).bits, "rows 2^32 apart");
  CHECK(key.bits != rounding_key(rounding_step(7, 1 + (int64_t{1} << 32)), 5).bits, "steps 2^32 apart");
  CHECK(rounding_bits(key, 0) != rounding_bits(key, 1), "positions");
}

static void check_low_bits() {
  CHECK(low_bits(-5) == 0 && low_bits(0) == 0 && low_bits(1) == 1, "small");
  CHECK(low_bits(63) == ~0ull >> 1 && low_bits(64) == ~0ull && low_bits(900) == ~0ull, "large");
}

int main() {
  std::mt19937 random(1);
  check_kind<IndexKind::bits>(random);
  check_kind<IndexKind::prefix>(random);
  check_kind<IndexKind::cols8>(random);
  check_full();
  check_complete();
  check_layout();
  check_philox();
  check_init();
  check_low_bits();
  check_half<Half>(10, 15, 0x7c00, 13);
  check_half<BFloat16>(7, 127, 0x7f80, 16);
  check_rounding_bits();
  return failures != 0;
}
