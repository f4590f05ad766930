// Which index layout for kind `bits`? The candidates run through the very kernels of lookup and bpr_step_: only how a row
// is located differs. d = 64, values in one flat array in all of them (the trained form must hold rows of any length).
//
//   line7     { uint64 base; 7 masks } in a cache line, rank by popcount          9.14 bytes a row (the format)
//   record16  { uint64 mask; uint64 start } a row                                16    bytes a row
//   record12  { uint64 mask; uint32 start } a row, a uint64 base every 4,096     12    bytes a row
//   split     masks and starts in two arrays                                     16    bytes a row
//
// Build and run (AVX-512 machine, two quiet cores):
//   g++ -std=c++17 -O3 -fopenmp -ffp-contract=off -Wno-maybe-uninitialized -mavx512f -mavx512bw -mavx512dq -mavx512vl \
//     -mavx512vbmi2 -mavx512vpopcntdq -mprfchw -mfma -mbmi2 -mpopcnt -Icsrc bench/experiments/bits_layout.cpp \
//     csrc/cpu/row_sort.cpp -o out/bits_layout && out/bits_layout [kept weights per mille, default: 50 100 200]
#include <cstring>

#include "cpu/isa_avx512.h"
//
#include "core/rows.h"
#include "cpu/prefetch.h"

namespace recsparse {

constexpr IndexKind kLine7 = IndexKind::bits;
constexpr IndexKind kRecord16 = static_cast<IndexKind>(16), kRecord12 = static_cast<IndexKind>(12);
constexpr IndexKind kSplit = static_cast<IndexKind>(17);
constexpr int kSuper = 4096;  // rows that share a 64-bit base in record12

struct Record16 {
  uint64_t mask, start;
};
struct __attribute__((packed)) Record12 {
  uint64_t mask;
  uint32_t start;
};

RS_INLINE RowRef<2> found(uint64_t start, uint64_t mask) {
  RowRef<2> ref;
  ref.start = start;
  ref.count = static_cast<uint32_t>(popcount64(mask));
  ref.mask[0] = mask;
  return ref;
}

template <>
const uint64_t* index_line<kRecord16, 2>(const TableView& table, int64_t row) {
  return table.index + 2 * row;
}
template <>
RowRef<2> locate<kRecord16, 2, avx512::Rank>(const TableView& table, int64_t row) {
  const Record16& record = reinterpret_cast<const Record16*>(table.index)[row];
  return found(record.start, record.mask);
}

// record12: the bases lie in front of the records and stay in the cache.
RS_INLINE int64_t super_count(const TableView& table) { return (table.layout.rows + kSuper - 1) / kSuper; }
RS_INLINE const Record12* records12(const TableView& table) {
  return reinterpret_cast<const Record12*>(table.index + super_count(table));
}
template <>
const uint64_t* index_line<kRecord12, 2>(const TableView& table, int64_t row) {
  return reinterpret_cast<const uint64_t*>(records12(table) + row);
}
template <>
RowRef<2> locate<kRecord12, 2, avx512::Rank>(const TableView& table, int64_t row) {
  const Record12 record = records12(table)[row];
  return found(table.index[row / kSuper] + record.start, record.mask);
}

template <>
const uint64_t* index_line<kSplit, 2>(const TableView& table, int64_t row) {
  prefetch(table.index + table.layout.rows + row);
  return table.index + row;
}
template <>
RowRef<2> locate<kSplit, 2, avx512::Rank>(const TableView& table, int64_t row) {
  return found(table.index[table.layout.rows + row], table.index[row]);
}

}  // namespace recsparse

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "cpu/bpr_step_kernel.h"
#include "cpu/lookup_kernel.h"
#include "cpu/row_sort.h"

using namespace recsparse;

namespace {

constexpr int kDim = 64, kBatch = 2048, kRounds = 25;

template <class T>
T* huge_array(size_t count) {
  constexpr size_t kHuge = 2 << 20;
  const size_t bytes = (count * sizeof(T) + 64 + kHuge - 1) / kHuge * kHuge;
  void* p = std::aligned_alloc(kHuge, bytes);
  madvise(p, bytes, MADV_HUGEPAGE);
  std::memset(p, 0, bytes);
  return static_cast<T*>(p);
}

double median(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

template <class Work>
double seconds(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Case {
  int64_t rows;
  uint64_t kept;
  std::vector<uint64_t> masks;
  float *values, *moments;
};

template <IndexKind K>
TableView build(const Case& c) {
  const bool line7 = K == kLine7, record12 = K == kRecord12;
  TableView table{{K, kDim, c.rows}, nullptr, nullptr};
  uint64_t* index = huge_array<uint64_t>(line7 ? (c.rows / 7 + 1) * 8 : 2 * c.rows + 8);
  table.index = index;
  uint64_t start = 0;
  for (int64_t row = 0; row < c.rows; ++row) {
    const uint64_t mask = c.masks[row];
    if (line7) {
      if (row % 7 == 0) index[row / 7 * 8] = start;
      index[row / 7 * 8 + 1 + row % 7] = mask;
    } else if (record12) {
      if (row % kSuper == 0) index[row / kSuper] = start;
      const Record12 record{mask, static_cast<uint32_t>(start - index[row / kSuper])};
      std::memcpy(const_cast<Record12*>(records12(table)) + row, &record, sizeof(record));
    } else if (K == kSplit) {
      index[row] = mask;
      index[c.rows + row] = start;
    } else {
      index[2 * row] = mask;
      index[2 * row + 1] = start;
    }
    start += popcount64(mask);
  }
  return table;
}

template <IndexKind K>
std::vector<double> measure(const Case& c, std::mt19937_64& random) {
  const TableView table = build<K>(c);
  // Weights and moments, the same for all layouts, so that the index alone differs.
  const bool far = is_far(static_cast<int64_t>(c.kept * 3 * sizeof(float)));
  std::vector<double> result;
  float* out = huge_array<float>(1000000 * kDim);
  for (const int64_t count : {int64_t{16384}, int64_t{1000000}}) {
    std::vector<int64_t> ids(count);
    std::vector<double> times;
    for (int round = 0; round < kRounds; ++round) {
      for (int64_t& id : ids) id = static_cast<int64_t>(random() % c.rows);
      const LookupArgs<float> args{table, c.values, static_cast<int64_t>(c.kept), ids.data(), count, out};
      times.push_back(seconds([&] { avx512::lookup_rows<float, K, 2>(args, count > 8192, far, 0, count); }));
    }
    result.push_back(median(times) * 1e9 / static_cast<double>(count));
  }
  BprStepArgs args{};
  args.table = table;
  args.values = c.values;
  args.state = c.moments;
  args.capacity = static_cast<int64_t>(c.kept);
  args.optimizer = OptimizerOptions{Optimizer::adam, 1e-3, 0.9, 0.999, 1e-8, 0};
  args.item_offset = c.rows / 2;
  args.l2 = 1e-3f;
  BprBatch batch{};
  batch.args = &args;
  batch.count = kBatch;
  batch.step = 1;
  batch.far = far;
  batch.inverse_count = 1.0f / kBatch;
  batch.record_bytes = 64;
  batch.records = huge_array<char>(3 * kBatch * 64);
  batch.spill_stride = 3 * kBprChunk * kDim;
  batch.spill = huge_array<float>(kBatch / kBprChunk * batch.spill_stride);
  batch.chunk_loss = huge_array<double>(kBatch / kBprChunk);
  batch.shift = bits_for(3 * kBatch);
  uint64_t* keys = huge_array<uint64_t>(6 * kBatch);
  std::vector<int64_t> ids(3 * kBatch);
  batch.users = ids.data();
  batch.pos = batch.users + kBatch;
  batch.neg = batch.pos + kBatch;
  std::vector<double> times;
  for (int round = 0; round < 40 * kRounds; ++round) {
    for (int64_t& id : ids) id = static_cast<int64_t>(random() % (c.rows / 2));
    times.push_back(seconds([&] {
      for (int t = 0; t < kBatch; ++t) {
        for (int role = 0; role < 3; ++role) {
          const int64_t row = ids[role * kBatch + t] + (role ? args.item_offset : 0);
          keys[3 * t + role] = static_cast<uint64_t>(row) << batch.shift | static_cast<uint64_t>(3 * t + role);
        }
      }
      batch.keys = radix_sort(keys, keys + 3 * kBatch, 3 * kBatch, batch.shift, bits_for(c.rows));
      avx512::bpr_score_rows<float, K, 2>(batch, 0, kBatch);
      avx512::bpr_update<float>(batch, 0, 3 * kBatch);
    }));
  }
  result.push_back(median(times) * 1e9 / kBatch);
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<int> densities;  // per mille
  for (int i = 1; i < argc; ++i) densities.push_back(std::atoi(argv[i]));
  if (densities.empty()) densities = {50, 100, 200};
  std::printf("%9s %8s  %-10s %14s %14s %14s\n", "rows", "density", "layout", "lookup 16k ns", "lookup 1M ns",
              "bpr_step_ ns");
  for (const int64_t rows : {int64_t{69716}, int64_t{4000000}, int64_t{8000000}}) {
    for (const int per_mille : densities) {
      std::mt19937_64 random(1);
      Case c{rows, 0, std::vector<uint64_t>(rows, 0), nullptr, nullptr};
      for (uint64_t& mask : c.masks) {
        for (int col = 0; col < kDim; ++col)
          mask |= static_cast<uint64_t>(random() % 1000 < uint64_t(per_mille)) << col;
        c.kept += popcount64(mask);
      }
      c.values = huge_array<float>(c.kept);
      c.moments = huge_array<float>(2 * c.kept);
      for (uint64_t i = 0; i < c.kept; ++i) c.values[i] = static_cast<float>(random() % 2001) * 1e-5f - 1e-2f;
      const auto print = [&](const char* name, const std::vector<double>& ns) {
        std::printf("%9lld %8.2f  %-10s %14.1f %14.1f %14.1f\n", static_cast<long long>(rows), per_mille / 1000.0, name,
                    ns[0], ns[1], ns[2]);
        std::fflush(stdout);
      };
      print("line7", measure<kLine7>(c, random));
      print("record16", measure<kRecord16>(c, random));
      print("record12", measure<kRecord12>(c, random));
      print("split", measure<kSplit>(c, random));
      std::free(c.values);
      std::free(c.moments);
    }
  }
}
