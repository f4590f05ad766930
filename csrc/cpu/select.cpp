// A sample of the keys gives a bracket that holds the k-th largest with near certainty. One pass over the array counts
// what lies above the bracket and copies the few keys inside it; the answer is then selected among those. When the
// bracket misses, or the keys inside do not fit the bounded buffer, three counting passes over the whole array find the
// same answer. Only counts and multisets of keys are used, so the order in which threads work cannot show. Keys of 16 bits
// are simply counted.
#include "cpu/select.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "core/float_order.h"
#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace recsparse {

RS_CPU_VARIANTS(SelectKernel, select_kernel);

namespace {

constexpr int64_t kSmall = 1 << 17;  // keys; below, counting passes out of the second-level cache are as fast
constexpr int64_t kSpan = 1 << 16;   // keys a counting task
constexpr int64_t kBlock = 2048;     // keys filtered at a time into a buffer in the first-level cache
constexpr int64_t kSegment = 4096;   // keys that a thread takes from the pool at a time
constexpr int64_t kPoolShare = 24;   // the pool holds n / kPoolShare keys
constexpr int64_t kMaxSample = 1 << 15;
constexpr double kSigmas = 3.5;  // half width of the bracket in standard deviations of the sample's rank

struct Span {
  const uint32_t* bits;
  int64_t size;
};

int64_t total_size(const std::vector<Span>& spans) {
  int64_t total = 0;
  for (const Span& span : spans) total += span.size;
  return total;
}

struct Bracket {
  uint32_t lo = 0, hi = ~0u;
};

// Most significant digit first: 11 + 11 + 10 bits. Each pass counts the keys that agree with the digits found so far;
// digits that all keys of [lo, hi] share need no pass. max_key is known only when lo and hi differ in the first digit.
Selection radix_select(const std::vector<Span>& spans, uint32_t mask, Bracket bounds, int64_t k, int threads) {
  constexpr int kDigits = 3, kShift[kDigits] = {21, 10, 0}, kBins[kDigits] = {2048, 2048, 1024};
  if (total_size(spans) < kSpan) threads = 1;
  threads = std::min<int>(threads, static_cast<int>(spans.size()));
  std::vector<std::vector<int64_t>> counts(threads, std::vector<int64_t>(2048));
  std::vector<uint32_t> max_keys(threads, 0);
  uint32_t prefix = 0;
  for (int digit = 0; digit < kDigits; ++digit) {
    const int shift = kShift[digit];
    const uint32_t low = kBins[digit] - 1;
    if (bounds.lo >> shift == bounds.hi >> shift) {
      prefix = bounds.lo & (~0u << shift);
      continue;
    }
    const uint32_t decided = digit == 0 ? 0 : ~0u << kShift[digit - 1];
    parallel_region(threads, [&](int rank) {
      int64_t* bins = counts[rank].data();
      std::fill(bins, bins + 2048, 0);
      uint32_t max_key = 0;
      const Range range = static_range(static_cast<int64_t>(spans.size()), 1, rank, threads);
      for (int64_t s = range.begin; s < range.end; ++s) {
        for (int64_t i = 0; i < spans[s].size; ++i) {
          const uint32_t key = spans[s].bits[i] & mask;
          max_key = std::max(max_key, key);
          if (((key ^ prefix) & decided) == 0) ++bins[(key >> shift) & low];
        }
      }
      max_keys[rank] = max_key;
    });
    for (int bin = kBins[digit] - 1; bin >= 0; --bin) {
      int64_t count = 0;
      for (int rank = 0; rank < threads; ++rank) count += counts[rank][bin];
      if (k <= count) {
        prefix |= static_cast<uint32_t>(bin) << shift;
        break;
      }
      k -= count;
    }
  }
  return Selection{prefix, k, *std::max_element(max_keys.begin(), max_keys.end())};
}

std::vector<Span> cut(const uint32_t* bits, int64_t n) {
  std::vector<Span> spans;
  for (int64_t begin = 0; begin < n; begin += kSpan) spans.push_back({bits + begin, std::min(kSpan, n - begin)});
  return spans;
}

// One key from each of `size` equal strides, at a place that depends on the stride's number alone: a fixed offset would
// see a single column of a row-major table.
Bracket sample_bracket(const uint32_t* bits, int64_t n, uint32_t mask, int64_t k, int threads) {
  const int64_t size = std::min(kMaxSample, n / 16), stride = n / size;
  std::vector<uint32_t> sample(size);
  parallel_for(size, 1024, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint64_t hash = static_cast<uint64_t>(i + 1) * 0x9E3779B97F4A7C15ull;
      sample[i] = bits[i * stride + static_cast<int64_t>((hash >> 33) % static_cast<uint64_t>(stride))] & mask;
    }
  });
  const double p = static_cast<double>(k) / static_cast<double>(n), count = static_cast<double>(size);
  const double middle = p * count, spread = kSigmas * std::sqrt(count * p * (1 - p)) + 4;
  const int64_t above = static_cast<int64_t>(middle - spread), below = static_cast<int64_t>(middle + spread);
  const std::vector<Span> spans = {{sample.data(), size}};
  Bracket bracket;
  if (above >= 1) bracket.hi = radix_select(spans, mask, Bracket{}, above, 1).threshold;
  if (below <= size) bracket.lo = radix_select(spans, mask, Bracket{}, below, 1).threshold;
  return bracket;
}

// Room for the keys inside the bracket, handed out in segments so that it does not matter where in the array they lie.
class Pool {
 public:
  Pool(int64_t n, int threads)
      : segments_(n / kPoolShare / kSegment + threads),
        keys_(new uint32_t[segments_ * kSegment]),
        sizes_(segments_, 0) {}

  // Index of a fresh segment, or -1 when there is none left.
  int64_t take() {
    const int64_t segment = next_.fetch_add(1, std::memory_order_relaxed);
    return segment < segments_ ? segment : -1;
  }
  uint32_t* keys(int64_t segment) { return keys_.get() + segment * kSegment; }
  void set_size(int64_t segment, int64_t size) { sizes_[segment] = size; }
  bool overflowed() const { return next_.load(std::memory_order_relaxed) > segments_; }

  std::vector<Span> spans() const {
    std::vector<Span> spans;
    for (int64_t i = 0; i < segments_; ++i) {
      if (sizes_[i]) spans.push_back({keys_.get() + i * kSegment, sizes_[i]});
    }
    return spans;
  }

 private:
  int64_t segments_;
  std::unique_ptr<uint32_t[]> keys_;  // not initialised: pages that no key needs are never touched
  std::vector<int64_t> sizes_;
  std::atomic<int64_t> next_{0};
};

// One thread's part of the pool.
class Writer {
 public:
  explicit Writer(Pool& pool) : pool_(pool) {}
  ~Writer() { close(); }

  void append(const uint32_t* keys, int64_t size) {
    while (size > 0 && !full_) {
      if (used_ == kSegment) open();
      const int64_t part = full_ ? 0 : std::min(size, kSegment - used_);
      if (part > 0) std::memcpy(pool_.keys(segment_) + used_, keys, part * sizeof(uint32_t));
      used_ += part;
      keys += part;
      size -= part;
    }
  }

 private:
  void open() {
    close();
    segment_ = pool_.take();
    full_ = segment_ < 0;
    used_ = 0;
  }
  void close() {
    if (segment_ >= 0) pool_.set_size(segment_, used_);
  }

  Pool& pool_;
  int64_t segment_ = -1, used_ = kSegment;
  bool full_ = false;
};

}  // namespace

Selection select_keys(const uint32_t* bits, int64_t n, uint32_t mask, int64_t k, int threads) {
  if (n < kSmall) return radix_select(cut(bits, n), mask, Bracket{}, k, threads);
  const SelectKernel& kernel = select_kernel();
  const Bracket bracket = sample_bracket(bits, n, mask, k, threads);
  Pool pool(n, threads);
  std::vector<BracketCounts> parts(threads);
  std::vector<int64_t> inside_parts(threads, 0);
  parallel_region(threads, [&](int rank) {
    alignas(64) uint32_t inside[kBlock + 16];
    BracketCounts counts;
    int64_t total = 0;
    Writer writer(pool);
    const Range range = static_range(n, kBlock, rank, threads);
    for (int64_t i = range.begin; i < range.end; i += kBlock) {
      const int64_t size = std::min(kBlock, range.end - i);
      const int64_t found = kernel.bracket(bits + i, size, mask, bracket.lo, bracket.hi, &counts, inside);
      writer.append(inside, found);
      total += found;
    }
    parts[rank] = counts;
    inside_parts[rank] = total;
  });
  BracketCounts all;
  int64_t inside = 0;
  for (int rank = 0; rank < threads; ++rank) {
    all.above += parts[rank].above;
    all.equal_lo += parts[rank].equal_lo;
    all.max_key = std::max(all.max_key, parts[rank].max_key);
    inside += inside_parts[rank];
  }
  const int64_t above_lo = all.above + inside;
  if (k > above_lo && k <= above_lo + all.equal_lo) return Selection{bracket.lo, k - above_lo, all.max_key};
  if (k > all.above && k <= above_lo && !pool.overflowed()) {
    const Selection found = radix_select(pool.spans(), ~0u, bracket, k - all.above, threads);
    return Selection{found.threshold, found.ties, all.max_key};
  }
  return radix_select(cut(bits, n), mask, Bracket{}, k, threads);
}

namespace {

// Values whose bits & mask are above those of infinity.
template <class Bits>
NanScan find_nan(const Bits* bits, int64_t n, uint32_t mask, uint32_t infinity, int threads) {
  std::vector<NanScan> parts(threads);
  parallel_region(threads, [&](int rank) {
    NanScan scan;
    const Range range = static_range(n, kSpan, rank, threads);
    for (int64_t i = range.begin; i < range.end; ++i) {
      if ((bits[i] & mask) > infinity && scan.count++ == 0) scan.first = i;
    }
    parts[rank] = scan;
  });
  NanScan all;
  for (const NanScan& part : parts) {
    if (all.first < 0) all.first = part.first;
    all.count += part.count;
  }
  return all;
}

// Sixteen-bit values have so few magnitudes that one pass counts each of them. Neighbours count in tables of their own:
// weights come in runs of equal magnitudes, zeros above all, and a count waits for the one before it.
Selection select_keys16(const uint16_t* bits, int64_t n, int64_t k, int threads) {
  constexpr int kKeys = 1 << 15;
  if (n < kSpan) threads = 1;
  std::vector<std::vector<int64_t>> counts(threads);
  parallel_region(threads, [&](int rank) {
    counts[rank].assign(2 * kKeys, 0);
    int64_t* bins = counts[rank].data();
    const Range range = static_range(n, kSpan, rank, threads);
    int64_t i = range.begin;
    for (; i + 2 <= range.end; i += 2) {
      ++bins[bits[i] & kMagnitudeMask16];
      ++bins[kKeys + (bits[i + 1] & kMagnitudeMask16)];
    }
    if (i < range.end) ++bins[bits[i] & kMagnitudeMask16];
  });
  Selection found;
  bool decided = false;
  for (int key = kKeys - 1; key >= 0; --key) {
    int64_t count = 0;
    for (const auto& bins : counts) count += bins[key] + bins[kKeys + key];
    if (count && !found.max_key) found.max_key = static_cast<uint32_t>(key);
    if (!decided && k <= count) {
      found.threshold = static_cast<uint32_t>(key);
      found.ties = k;
      decided = true;
    }
    k -= count;
  }
  return found;
}

}  // namespace

MagnitudeSelection select_magnitude(ValueType type, const void* values, int64_t n, int64_t k, int threads) {
  const bool wide = type == ValueType::float32;
  const uint32_t infinity = infinity_key(type);
  const auto* bits32 = static_cast<const uint32_t*>(values);
  const auto* bits16 = static_cast<const uint16_t*>(values);
  const auto scan = [&] {
    return wide ? find_nan(bits32, n, kMagnitudeMask, infinity, threads)
                : find_nan(bits16, n, kMagnitudeMask16, infinity, threads);
  };
  if (k == 0) return MagnitudeSelection{infinity, 0, scan()};
  const Selection found =
      wide ? select_keys(bits32, n, kMagnitudeMask, k, threads) : select_keys16(bits16, n, k, threads);
  MagnitudeSelection result{found.threshold, found.ties, {}};
  if (found.max_key > infinity) result.nan = scan();
  return result;
}

}  // namespace recsparse
