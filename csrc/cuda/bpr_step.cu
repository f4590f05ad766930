#include <algorithm>
#include <type_traits>

#include "cuda/bpr_score.cuh"
#include "cuda/bpr_step.h"
#include "cuda/errors.cuh"
#include "cuda/mean_losses.cuh"
#include "cuda/runs.cuh"
#include "cuda/sort.h"
#include "cuda/update_row.cuh"

namespace recsparse::cuda {
namespace {

// Occurrences that are sorted at once, unless a mini-batch has more: enough to hide the launches of the sort (some 20 us),
// 64 MB of keys. The emulator has small calls, cut in several groups all the same.
constexpr int64_t kSortedOccurrences = kEmulated ? 1 << 10 : 1 << 22;

// How a call is cut: `group` mini-batches are sorted together.
struct Plan {
  int64_t full, batches, group;  // triples of a whole mini-batch; mini-batches of the call; of a group
  int shift, row_bits, group_bits;
  int64_t stride;  // floats of a record
};

Plan make_plan(const BprStepArgs& args) {
  Plan plan;
  plan.full = std::min(args.batch_size, args.triples.count);
  plan.batches = plan.full > 0 ? (args.triples.count + args.batch_size - 1) / args.batch_size : 0;
  plan.shift = bits_for(static_cast<uint64_t>(3 * plan.full));
  plan.row_bits = bits_for(static_cast<uint64_t>(args.table.layout.rows));
  const int room = std::min(30, 64 - plan.shift - plan.row_bits);
  const int64_t wished = std::max<int64_t>(1, kSortedOccurrences / std::max<int64_t>(1, 3 * plan.full));
  plan.group = std::min({std::max<int64_t>(1, plan.batches), wished, int64_t{1} << room});
  plan.group_bits = bits_for(static_cast<uint64_t>(plan.group));
  plan.stride = (args.table.layout.dim + 3) / 4 * 4;
  return plan;
}

// Where a row's weights are, so that the update need not decode it again.
struct alignas(16) RecordPlace {
  uint64_t start;
  int32_t count;
};

struct Scratch {
  uint32_t* bad;         // [1], not 0: an id is out of range
  StepNumbers* numbers;  // [group]
  uint64_t *keys, *sorted;
  uint32_t* long_count;  // [group]
  int64_t* long_heads;
  RecordPlace* places;  // [3 * full]
  float* records;       // [3 * full, stride]
  float* softplus;      // [count]
  char* sort;
};

Scratch carve(const BprStepArgs& args, const Plan& plan, Workspace& space) {
  const int64_t sorted = 3 * std::min(plan.group * plan.full, args.triples.count);
  Scratch scratch;
  scratch.bad = space.take<uint32_t>(1);
  scratch.numbers = space.take<StepNumbers>(plan.group);
  scratch.keys = space.take<uint64_t>(sorted);
  scratch.sorted = space.take<uint64_t>(sorted);
  scratch.long_count = space.take<uint32_t>(plan.group);
  scratch.long_heads = space.take<int64_t>(long_room(3 * plan.full));
  scratch.places = space.take<RecordPlace>(3 * plan.full);
  scratch.records = space.take<float>(3 * plan.full * plan.stride);
  scratch.softplus = space.take<float>(args.triples.count);
  scratch.sort = space.take<char>(sort_workspace_bytes(sorted));
  return scratch;
}

// The keys (mini-batch of the group, row, occurrence) of a group's triples, and the numbers of its steps. Grid:
// grid_for(count), one triple a thread and stride. Bytes moved: 24 read and 24 written a triple.
__global__ void __launch_bounds__(kThreads)
    bpr_keys_kernel(BprStepArgs args, Plan plan, Scratch scratch, int64_t first_batch, int64_t batches) {
  if (*scratch.bad) return;
  for (int64_t b = global_thread(); b < batches; b += global_threads()) {
    scratch.numbers[b] = step_numbers(args.optimizer, *args.step + first_batch + b + 1, true, args.seed);
  }
  const int64_t begin = first_batch * plan.full;
  const int64_t count = smaller(args.triples.count - begin, batches * plan.full);
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    const int64_t batch = i / plan.full;
    const uint64_t occurrence = static_cast<uint64_t>(3 * (i - batch * plan.full));
    const uint64_t high = static_cast<uint64_t>(batch) << plan.row_bits;
    const Triple triple = triple_at(args.triples, begin + i);
    const uint64_t rows[3] = {static_cast<uint64_t>(triple.user), static_cast<uint64_t>(triple.pos),
                              static_cast<uint64_t>(triple.neg)};
#pragma unroll
    for (int role = 0; role < 3; ++role)
      scratch.keys[3 * i + role] = (high | rows[role]) << plan.shift | (occurrence + role);
  }
}

// A record: the lane's columns of `x`, times `factor`, where the row keeps them, packed.
template <int W>
__device__ __forceinline__ void write_record(const Spread<W>& row, const float* x, float factor, float* record) {
  using Dense = DenseRow<float, W>;
#pragma unroll
  for (int c = 0; c < Dense::kChunks; ++c) {
    const uint32_t bits = row.columns[c].bits;
    float* out = record + row.columns[c].before;
#pragma unroll
    for (int i = 0; i < Dense::kVector; ++i) {
      if (bits >> i & 1) out[__popc(bits & ((1u << i) - 1))] = x[c * Dense::kVector + i] * factor;
    }
  }
}

// Grid: grid_for(triples); a group of lanes (16 for d = 64) takes a triple. Bytes moved, a triple: 24 of ids, 3 index blocks,
// 3 rows of kept values, and written as many floats as the three rows keep, 48 of places and 4 of loss. Records of 65,536
// triples at 10 % of 64 columns lie in the 50 MB second-level cache until the update reads them.
template <class T, IndexKind K, int W>
__global__ void __launch_bounds__(kThreads, W == 8 ? 2 : 3)
    bpr_score_kernel(DeviceTable table, BprStepArgs args, Scratch scratch, int64_t begin, int64_t count, int64_t stride,
                     float inverse_count) {
  if (*scratch.bad) return;
  using Dense = DenseRow<float, W>;
  constexpr int G = Dense::kLanes, kOwn = Spread<W>::kOwn;
  const T* values = static_cast<const T*>(args.values);
  const int64_t groups = global_threads() / G, rounds = (count + groups - 1) / groups;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t t = global_thread() / G + round * groups;
    const Triple triple = t < count ? triple_at(args.triples, begin + t) : Triple{-1, -1, -1};
    const SpreadTriple<W> rows = spread_triple<T, K, W>(table, values, triple);
    const LogisticLoss loss = logistic_loss(rows.difference());
    if (t >= count) continue;
    const float coefficient = loss.sigmoid * inverse_count;
    float* records = scratch.records + 3 * t * stride;
    float partner[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) partner[i] = rows.neg.x[i] - rows.pos.x[i];
    write_record<W>(rows.user, partner, coefficient, records);
    write_record<W>(rows.pos, rows.user.x, -coefficient, records + stride);
    write_record<W>(rows.neg, rows.user.x, coefficient, records + 2 * stride);
    if (threadIdx.x % G == 0) {
      scratch.places[3 * t] = RecordPlace{rows.user.start, rows.user.count};
      scratch.places[3 * t + 1] = RecordPlace{rows.pos.start, rows.pos.count};
      scratch.places[3 * t + 2] = RecordPlace{rows.neg.start, rows.neg.count};
      scratch.softplus[begin + t] = loss.softplus;
    }
  }
}

// The update of a distinct row from its records. 4 W lanes share it (8 for d = 64): a row at 10 % of 64 columns has six
// weights. Bytes moved: 16 (place) and the kept weights and state, read and written, a row; the kept floats an occurrence.
template <class T, class Step, int W>
struct UpdateFromRecords {
  using Place = RecordPlace;
  static constexpr int kLanes = 4 * W, kSums = 8;

  Step step;
  T* values;
  float* state;
  const StepNumbers* numbers;
  const uint32_t* bad;
  const RecordPlace* places;
  const float* records;
  int64_t stride;
  float decay;  // of the regulariser, an occurrence

  __device__ bool skip() const { return *bad != 0; }
  __device__ Place begin(int64_t row, int64_t, int64_t first) const { return row < 0 ? Place{0, 0} : places[first]; }
  __device__ void add(const Place& place, int64_t occurrence, float* sums) const {
    const int lane = threadIdx.x % kLanes;
    const float* record = records + occurrence * stride;
#pragma unroll
    for (int c = 0; c < kSums; ++c) {
      if (lane + c * kLanes < place.count) sums[c] += record[lane + c * kLanes];
    }
  }
  __device__ void finish(const Place& place, int64_t row, int count, const float* sums) const {
    const StepNumbers now = *numbers;
    const float pull = decay * static_cast<float>(count);
    const int lane = threadIdx.x % kLanes, kept = row < 0 ? 0 : place.count;
    update_row<kLanes, kSums>(
        at_step(step, now), now.rounding, values, state, row, place.start, place.count,
        [&](int c) { return lane + c * kLanes < kept ? lane + c * kLanes : -1; },
        [&](int c, float weight) { return ::fmaf(weight, pull, sums[c]); });
  }
};

void score(const DeviceTable& table, const BprStepArgs& args, const Plan& plan, const Scratch& scratch, int64_t begin,
           int64_t count, void* stream) {
  with_values(args.value_type, [&](auto storage) {
    with_width(table.layout, [&](auto width) {
      with_kind(table.layout, [&](auto kind) {
        constexpr int W = decltype(width)::width;
        launch("bpr_score", bpr_score_kernel<decltype(storage), decltype(kind)::kind, W>,
               grid_for(count, kThreads / DenseRow<float, W>::kLanes), kThreads, stream, table, args, scratch, begin,
               count, plan.stride, 1.0f / static_cast<float>(count));
      });
    });
  });
}

void update(const BprStepArgs& args, const Plan& plan, const Scratch& scratch, const Runs& runs, int64_t in_group,
            void* stream) {
  with_values(args.value_type, [&](auto storage) {
    using T = decltype(storage);
    with_optimizer(args.optimizer, [&](const auto& step) {
      with_width(args.table.layout, [&](auto width) {
        const float decay = args.l2 * (1.0f / static_cast<float>(runs.count / 3));
        const UpdateFromRecords<T, std::decay_t<decltype(step)>, decltype(width)::width> op{
            step,
            static_cast<T*>(args.values),
            args.state,
            scratch.numbers + in_group,
            scratch.bad,
            scratch.places,
            scratch.records,
            plan.stride,
            decay};
        launch_runs("bpr_update", op, runs, stream);
      });
    });
  });
}

}  // namespace

int64_t bpr_step_workspace_bytes(const BprStepArgs& args) {
  Workspace space(nullptr);
  carve(args, make_plan(args), space);
  return space.bytes();
}

const char* bpr_step(const BprStepArgs& args, void* stream) {
  if (args.triples.count == 0) return nullptr;
  const Plan plan = make_plan(args);
  Workspace space(args.workspace);
  const Scratch scratch = carve(args, plan, space);
  const DeviceTable table = device_table(args.table);
  check_triples(args.triples, scratch.bad, stream);
  for (int64_t first = 0; first < plan.batches; first += plan.group) {
    const int64_t batches = std::min(plan.group, plan.batches - first);
    const int64_t triples = std::min(batches * plan.full, args.triples.count - first * plan.full);
    clear(scratch.long_count, 4 * batches, stream);
    launch("bpr_keys", bpr_keys_kernel, grid_for(triples, kThreads), kThreads, stream, args, plan, scratch, first,
           batches);
    const SortArgs sort{
        scratch.keys, scratch.sorted, 3 * triples, plan.shift, plan.shift + plan.row_bits + plan.group_bits,
        scratch.sort};
    if (const char* error = sort_keys(sort, stream)) return error;
    for (int64_t b = 0; b < batches; ++b) {
      const int64_t begin = b * plan.full, count = std::min(plan.full, triples - begin);
      score(table, args, plan, scratch, first * plan.full + begin, count, stream);
      const Runs runs{scratch.sorted + 3 * begin,
                      3 * count,
                      plan.shift,
                      args.table.layout.rows,
                      scratch.long_count + b,
                      scratch.long_heads,
                      (1ull << plan.row_bits) - 1};
      update(args, plan, scratch, runs, b, stream);
    }
  }
  mean_losses(
      MeanLosses{scratch.softplus, scratch.bad, args.triples.count, plan.full, plan.batches, args.loss, args.step},
      stream);
  return launch_error();
}

}  // namespace recsparse::cuda
