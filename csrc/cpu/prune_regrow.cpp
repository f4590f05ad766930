// The plan: thresholds, then for every slab how many weights stay and enter, then where each slab's values go.
//
// Slabs move inside one array, so a slab must not be written over values that have not been read. Let o_i and n_i be the
// old and the new start of slab i; both are ascending. Slabs that move right (n_i > o_i) go first, in descending order,
// then the others in ascending order. A slab i writes [n_i, n_{i+1}); an unread slab j would lose values if that met
// [o_j, o_{j+1}).
//   i moves right: for j < i, o_{j+1} <= o_i < n_i, so they do not meet. For j > i they meet only if o_j < n_{i+1} <= n_j:
//   then j moves right too and, being later, was read before.
//   i does not: those that move right have been read, and so has every j < i. For j > i that does not move right,
//   o_j >= n_j >= n_{i+1}, so they do not meet.
// A group of neighbours in this order may be read together before any of it is written: reading earlier is always safe.
#include "cpu/prune_regrow.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "core/float_order.h"
#include "core/rows.h"
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/select.h"

namespace recsparse {

using PruneRegrowKernels = PruneRegrowKernel[2];  // for values of 4 and of 2 bytes
RS_CPU_VARIANTS(PruneRegrowKernels, prune_regrow_kernels);

namespace {

constexpr int64_t kMinSlabSlots = 1 << 13, kMaxSlabSlots = 1 << 18;  // the larger is about the second-level cache
constexpr int64_t kSlabs = 256;                                      // wished for
// Of all slabs, in percent, those that are read before they are written. Every group costs two barriers, so they are as
// large as the promise of a few percent of extra memory allows.
constexpr int64_t kGroupPercent = 4;
constexpr int64_t kGrain = 4096;  // candidates
constexpr int64_t kAll = std::numeric_limits<int64_t>::max();

const PruneRegrowKernel& kernel(const PruneRegrowArgs& args) {
  return prune_regrow_kernels()[args.value_type == ValueType::float32 ? 0 : 1];
}

// Candidates are few: no vectors needed.
void count_scores(const uint32_t* keys, int64_t size, uint32_t threshold, int64_t* above, int64_t* equal) {
  int64_t more = 0, same = 0;
  for (int64_t i = 0; i < size; ++i) {
    more += keys[i] > threshold;
    same += keys[i] == threshold;
  }
  *above = more;
  *equal = same;
}

TableView view(const PruneRegrowArgs& args) { return TableView{args.layout, args.index, args.cols}; }

int64_t kept_values(const PruneRegrowArgs& args) {
  if (args.layout.rows == 0) return 0;
  const TableView table = view(args);
  const int64_t last = args.layout.rows - 1;
  const RowRef<0> row = args.layout.kind == IndexKind::bits ? locate<IndexKind::bits, 0>(table, last)
                                                            : locate<IndexKind::cols8, 0>(table, last);
  return static_cast<int64_t>(row.start + row.count);
}

bool slot_kept(const TableView& table, int64_t key) {
  const int64_t row = key / table.layout.dim;
  const int column = static_cast<int>(key % table.layout.dim);
  return read_row(table, row).mask[column >> 6] >> (column & 63) & 1;
}

// Checks the candidates and writes their scores as ordered keys.
PruneRegrowResult check_candidates(const PruneRegrowArgs& args, std::vector<uint32_t>& score_keys, int threads) {
  const int64_t slots = args.layout.rows * args.layout.dim;
  const TableView table = view(args);
  std::vector<PruneRegrowResult> firsts(threads);
  parallel_region(threads, [&](int rank) {
    const Range range = static_range(args.candidates, kGrain, rank, threads);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const int64_t key = args.keys[i];
      PruneRegrowStatus status = PruneRegrowStatus::ok;
      if (key < 0 || key >= slots) {
        status = PruneRegrowStatus::key_range;
      } else if (i > 0 && key <= args.keys[i - 1]) {
        status = PruneRegrowStatus::key_order;
      } else if (slot_kept(table, key)) {
        status = PruneRegrowStatus::key_kept;
      } else if (!std::isfinite(args.scores[i])) {
        status = PruneRegrowStatus::score_infinite;
      }
      if (status != PruneRegrowStatus::ok) {
        firsts[rank].status = status;
        firsts[rank].position = i;
        return;
      }
      score_keys[i] = ordered_key(args.scores[i]);
    }
  });
  for (const PruneRegrowResult& first : firsts) {
    if (first.status != PruneRegrowStatus::ok) return first;
  }
  return {};
}

// The part of the first `ties` equal keys that falls to a run with `equal` of them, after `before` others.
int64_t ties_left(int64_t ties, int64_t before) { return std::max<int64_t>(0, ties - before); }

// Cuts the table and finds every slab's old and new place. A slab is a fixed number of rows, whatever the threads.
std::vector<Slab> plan(const PruneRegrowArgs& args, int64_t nnz, Choice keep, Choice grow, const uint32_t* score_keys,
                       int threads) {
  const Layout& layout = args.layout;
  const int64_t slots = layout.rows * layout.dim, per_block = rows_per_block(layout);
  const int64_t slab_slots = std::min(kMaxSlabSlots, std::max(kMinSlabSlots, slots / kSlabs));
  const int64_t blocks = std::max<int64_t>(1, slab_slots / (per_block * layout.dim)), rows = blocks * per_block;
  const int64_t count = (layout.rows + rows - 1) / rows;
  std::vector<Slab> slabs(count);
  std::vector<int64_t> equal(count), grow_equal(count);
  parallel_for(count, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Slab& slab = slabs[i];
      slab.first_row = i * rows;
      slab.rows = std::min(rows, layout.rows - slab.first_row);
      const auto start = [&](int64_t s) {
        return s == count ? nnz : static_cast<int64_t>(args.index[s * blocks * block_words(layout)]);
      };
      slab.old_start = start(i);
      slab.old_count = start(i + 1) - slab.old_start;
      const int64_t *keys = args.keys, *end_keys = keys + args.candidates;
      const int64_t* first = std::lower_bound(keys, end_keys, slab.first_row * layout.dim);
      slab.first_candidate = first - keys;
      slab.candidates = std::lower_bound(first, end_keys, (slab.first_row + slab.rows) * layout.dim) - first;
      // Counts above the threshold wait in `ties` until the ties before the slab are known.
      slab.keep = {keep.threshold, 0};
      slab.grow = {grow.threshold, 0};
      kernel(args).count(args.values, slab.old_start, slab.old_count, keep.threshold, &slab.keep.ties, &equal[i]);
      count_scores(score_keys + slab.first_candidate, slab.candidates, grow.threshold, &slab.grow.ties, &grow_equal[i]);
    }
  });
  int64_t start = 0, ties_before = 0, grow_ties_before = 0;
  for (int64_t i = 0; i < count; ++i) {
    Slab& slab = slabs[i];
    const int64_t ties = ties_left(keep.ties, ties_before), grow_ties = ties_left(grow.ties, grow_ties_before);
    slab.new_start = start;
    slab.new_count = slab.keep.ties + std::min(ties, equal[i]) + slab.grow.ties + std::min(grow_ties, grow_equal[i]);
    slab.keep.ties = ties;
    slab.grow.ties = grow_ties;
    ties_before += equal[i];
    grow_ties_before += grow_equal[i];
    start += slab.new_count;
  }
  return slabs;
}

// Memory of one slab in flight, large enough for any of them.
class Scratch {
 public:
  Scratch(const PruneRegrowArgs& args, const std::vector<Slab>& slabs) {
    int64_t old_count = 0, new_count = 0, candidates = 0;
    for (const Slab& slab : slabs) {
      old_count = std::max(old_count, slab.old_count);
      new_count = std::max(new_count, slab.new_count);
      candidates = std::max(candidates, slab.candidates);
    }
    const int64_t survivors = std::min(old_count, new_count) + 64;  // vectors are stored whole
    const bool cols = args.layout.kind == IndexKind::cols8;
    bits_.reset(new uint64_t[words(old_count) + words(new_count)]);
    grown_.reset(new int64_t[candidates + 1]);
    values_.reset(new char[survivors * value_bytes(args.value_type)]);
    state_.reset(new float[args.state_per_weight * survivors]);
    cols_.reset(new uint8_t[cols ? survivors : 0]);
    pointers.keep = bits_.get();
    pointers.survivor = pointers.keep + words(old_count);
    pointers.grown = grown_.get();
    pointers.grown_count = 0;
    pointers.values = values_.get();
    pointers.state = state_.get();
    pointers.cols = cols_.get();
  }

  SlabScratch pointers;

 private:
  // 64-bit words for n bits, with room for a whole vector of 64 and one unaligned word.
  static int64_t words(int64_t n) { return n / 64 + 3; }

  std::unique_ptr<uint64_t[]> bits_;
  std::unique_ptr<int64_t[]> grown_;
  std::unique_ptr<char[]> values_;
  std::unique_ptr<float[]> state_;
  std::unique_ptr<uint8_t[]> cols_;
};

void rebuild(const PruneRegrowArgs& args, const std::vector<Slab>& slabs, const uint32_t* score_keys, int threads) {
  std::vector<int64_t> order;
  const int64_t count = static_cast<int64_t>(slabs.size());
  for (int64_t i = count - 1; i >= 0; --i) {
    if (slabs[i].new_start > slabs[i].old_start) order.push_back(i);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (slabs[i].new_start <= slabs[i].old_start) order.push_back(i);
  }
  const int64_t group = std::max<int64_t>(1, count * kGroupPercent / 100);
  std::vector<std::unique_ptr<Scratch>> scratch;
  for (int64_t i = 0; i < group; ++i) scratch.push_back(std::make_unique<Scratch>(args, slabs));
  for (int64_t first = 0; first < count; first += group) {
    const int64_t size = std::min(group, count - first);
    parallel_for(size, 1, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        kernel(args).read(args, score_keys, slabs[order[first + i]], &scratch[i]->pointers);
      }
    });
    parallel_for(size, 1, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) kernel(args).write(args, slabs[order[first + i]], scratch[i]->pointers);
    });
  }
}

template <class T>
void clear(T* data, int64_t begin, int64_t end, int threads) {
  parallel_for(end - begin, 1 << 16, threads, [&](int64_t from, int64_t to) {
    std::memset(data + begin + from, 0, static_cast<size_t>(to - from) * sizeof(T));
  });
}

}  // namespace

PruneRegrowResult prune_regrow(const PruneRegrowArgs& args, int threads) {
  PruneRegrowResult result;
  const int64_t nnz = kept_values(args);
  const auto fail = [&](PruneRegrowStatus status, int64_t position, int64_t value) {
    result.status = status;
    result.position = position;
    result.value = value;
    return result;
  };
  if (nnz < 0 || nnz > args.capacity) return fail(PruneRegrowStatus::bad_nnz, -1, nnz);
  if (args.drop < 0 || args.drop > nnz) return fail(PruneRegrowStatus::bad_drop, -1, nnz);
  std::vector<uint32_t> score_keys(args.candidates);
  result = check_candidates(args, score_keys, threads);
  if (result.status != PruneRegrowStatus::ok) return result;

  const int64_t grown = std::min(args.grow, args.candidates);
  const int64_t dropped = std::max<int64_t>(0, args.drop - (args.grow - grown));
  const int64_t new_nnz = nnz - dropped + grown;
  if (new_nnz > args.capacity) return fail(PruneRegrowStatus::no_capacity, -1, new_nnz);
  Choice keep{0, kAll}, grow{std::numeric_limits<uint32_t>::max(), 0};
  if (dropped > 0) {
    const MagnitudeSelection found = select_magnitude(args.value_type, args.values, nnz, nnz - dropped, threads);
    if (found.nan.count) return fail(PruneRegrowStatus::weight_nan, found.nan.first, found.nan.count);
    keep = {found.threshold, found.ties};
  }
  if (grown > 0) {
    const Selection found = select_keys(score_keys.data(), args.candidates, ~0u, grown, threads);
    grow = {found.threshold, found.ties};
  }
  if (dropped > 0 || grown > 0) {
    rebuild(args, plan(args, nnz, keep, grow, score_keys.data(), threads), score_keys.data(), threads);
  }
  const int64_t bytes = value_bytes(args.value_type);
  clear(static_cast<char*>(args.values), bytes * new_nnz, bytes * args.capacity, threads);
  const int64_t per_weight = args.state_per_weight;
  if (per_weight) clear(args.state, per_weight * new_nnz, per_weight * args.capacity, threads);
  if (args.layout.kind == IndexKind::cols8) clear(args.cols, new_nnz, args.capacity, threads);
  result.dropped = dropped;
  result.grown = grown;
  return result;
}

}  // namespace recsparse
