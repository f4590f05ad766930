#include "core/float_order.h"
#include "cuda/bpr_grow_scores.h"
#include "cuda/bpr_score.cuh"
#include "cuda/choose.cuh"
#include "cuda/row_keys.cuh"
#include "cuda/runs.cuh"

namespace recsparse::cuda {
namespace {

struct Scratch {
  uint32_t* bad;
  unsigned long long* positive;  // [1] scores above 0
  SelectState* state;
  float* gradients;  // [3 * count, dim] of the occurrences
  float* scores;     // [3 * count, dim]: of the row whose first sorted key is number i, else 0
  RunSpace runs;
  ChooseSpace choose;
  char* select;

  Scratch(const BprGrowScoresArgs& args, Workspace& space)
      : bad(space.take<uint32_t>(1)),
        positive(space.take<unsigned long long>(1)),
        state(space.take<SelectState>(1)),
        gradients(space.take<float>(slots(args))),
        scores(space.take<float>(slots(args))),
        runs(space, 3 * args.triples.count),
        choose(space, slots(args)),
        select(space.take<char>(select_workspace_bytes())) {}

  static int64_t slots(const BprGrowScoresArgs& args) { return 3 * args.triples.count * args.table.layout.dim; }
};

// Grid: grid_for(triples); a group of lanes takes a triple. Bytes moved, a triple: three index blocks and rows, 12 dim written.
template <class T, int W>
__global__ void __launch_bounds__(kThreads, W == 8 ? 2 : 3)
    grow_gradients_kernel(DeviceTable table, const T* values, BprTriples triples, float inverse_count, int shift,
                          uint64_t* keys, const uint32_t* bad, float* gradients, bool whole) {
  if (*bad) return;
  using Dense = DenseRow<float, W>;
  constexpr int G = Dense::kLanes;
  const int dim = table.layout.dim;
  const int64_t groups = global_threads() / G, rounds = (triples.count + groups - 1) / groups;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t t = global_thread() / G + round * groups;
    const Triple triple = t < triples.count ? triple_at(triples, t) : Triple{-1, -1, -1};
    const SpreadTriple<W> rows{spread_row<T, W>(values, locate_row<W, G>(table, triple.user)),
                               spread_row<T, W>(values, locate_row<W, G>(table, triple.pos)),
                               spread_row<T, W>(values, locate_row<W, G>(table, triple.neg))};
    const float coefficient = logistic_loss(rows.difference()).sigmoid * inverse_count;
    if (t >= triples.count) continue;
    float* out = gradients + 3 * t * dim;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const int column = Dense::column(c);
      Vector<float> user, pos, neg;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int own = 4 * c + i;
        user.x[i] = (rows.neg.x[own] - rows.pos.x[own]) * coefficient;
        pos.x[i] = -rows.user.x[own] * coefficient;
        neg.x[i] = rows.user.x[own] * coefficient;
      }
      store_vector(out + column, user, dim - column, whole);
      store_vector(out + dim + column, pos, dim - column, whole);
      store_vector(out + 2 * dim + column, neg, dim - column, whole);
    }
    if (threadIdx.x % G == 0) {
      const uint64_t occurrence = static_cast<uint64_t>(3 * t);
      keys[3 * t] = static_cast<uint64_t>(triple.user) << shift | occurrence;
      keys[3 * t + 1] = static_cast<uint64_t>(triple.pos) << shift | (occurrence + 1);
      keys[3 * t + 2] = static_cast<uint64_t>(triple.neg) << shift | (occurrence + 2);
    }
  }
}

// The magnitudes of a distinct row's gradient where it keeps nothing (runs.cuh). Bytes moved: 4 dim an occurrence, 4 dim
// written a row.
template <int W>
struct ScoreRows {
  using Dense = DenseRow<float, W>;
  struct Place {
    Row<W> row;
    int64_t at;
  };
  static constexpr int kLanes = Dense::kLanes, kSums = 4 * Dense::kChunks;

  DeviceTable table;
  const float* gradients;
  float* scores;
  unsigned long long* positive;
  const uint32_t* bad;
  bool whole;

  __device__ bool skip() const { return *bad != 0; }
  __device__ Place begin(int64_t row, int64_t at, int64_t) const {
    return Place{locate_row<W, kLanes>(table, row), at};
  }
  __device__ void add(const Place&, int64_t occurrence, float* sums) const {
    const int dim = table.layout.dim;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const int column = Dense::column(c);
      const Vector<float> part = load_vector(gradients + occurrence * dim + column, dim - column, whole);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[4 * c + i] += part.x[i];
    }
  }
  __device__ void finish(const Place& place, int64_t row, int, const float* sums) const {
    const int dim = table.layout.dim;
    int found = 0;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const int column = Dense::column(c);
      const ColumnBits kept = column_bits(place.row, column);
      Vector<float> score;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float magnitude = ::fabsf(sums[4 * c + i]);
        const bool candidate = row >= 0 && column + i < dim && !(kept.bits >> i & 1) && magnitude > 0;
        score.x[i] = candidate ? magnitude : 0.0f;
        found += __popc(__ballot_sync(kWholeWarp, candidate));
      }
      if (row >= 0) store_vector(scores + place.at * dim + column, score, dim - column, whole);
    }
    if (found > 0 && threadIdx.x % 32 == 0) atomicAdd(positive, static_cast<unsigned long long>(found));
  }
};

// One thread: how many are wanted.
__global__ void grow_wanted_kernel(SelectState* state, const unsigned long long* positive, int64_t slots, int64_t limit,
                                   int64_t* found) {
  if (global_thread() != 0) return;
  *found = smaller(limit, static_cast<int64_t>(*positive));
  *state = SelectState{*found > 0 ? slots : 0, *found, 0, 0};
}

struct ChosenScores {
  Runs runs;
  const float* scores;
  int dim;
  int64_t* keys;
  float* out;
  __device__ uint32_t key(int64_t i) const { return float_bits(scores[i]); }
  __device__ void emit(int64_t i, int64_t at) const {
    const int64_t head = i / dim;
    keys[at] = run_row(runs, head) * dim + (i - head * dim);
    out[at] = scores[i];
  }
};

}  // namespace

int64_t bpr_grow_scores_workspace_bytes(const BprGrowScoresArgs& args) {
  Workspace space(nullptr);
  const Scratch scratch(args, space);
  return space.bytes();
}

const char* bpr_grow_scores(const BprGrowScoresArgs& args, void* stream) {
  Workspace space(args.workspace);
  const Scratch scratch(args, space);
  const DeviceTable table = device_table(args.table);
  const int64_t count = args.triples.count, occurrences = 3 * count, slots = Scratch::slots(args);
  const int dim = table.layout.dim, shift = bits_for(static_cast<uint64_t>(occurrences));
  const Runs runs{scratch.runs.sorted,     occurrences, shift, table.layout.rows, scratch.runs.long_count,
                  scratch.runs.long_heads, ~0ull};
  check_triples(args.triples, scratch.bad, stream);
  clear(scratch.positive, sizeof(unsigned long long), stream);
  clear(scratch.runs.long_count, sizeof(uint32_t), stream);
  clear(scratch.scores, 4 * slots, stream);
  const char* error = nullptr;
  with_width(table.layout, [&](auto width) {
    constexpr int W = decltype(width)::width;
    const bool whole = dim % 4 == 0;
    with_values(args.value_type, [&](auto storage) {
      using T = decltype(storage);
      launch("grow_gradients", grow_gradients_kernel<T, W>, grid_for(count, kThreads / DenseRow<float, W>::kLanes),
             kThreads, stream, table, static_cast<const T*>(args.values), args.triples,
             1.0f / static_cast<float>(count), shift, scratch.runs.keys, scratch.bad, scratch.gradients, whole);
    });
    const SortArgs sort{scratch.runs.keys,
                        scratch.runs.sorted,
                        occurrences,
                        shift,
                        shift + bits_for(static_cast<uint64_t>(table.layout.rows)),
                        scratch.runs.sort};
    error = sort_keys(sort, stream);
    const ScoreRows<W> op{table, scratch.gradients, scratch.scores, scratch.positive, scratch.bad, whole};
    if (error == nullptr) launch_runs("grow_scores", op, runs, stream);
  });
  if (error != nullptr) return error;
  launch("grow_wanted", grow_wanted_kernel, 1, 32, stream, scratch.state, scratch.positive, slots, args.limit,
         args.found);
  const SelectArgs wanted{SelectKeys::words, scratch.scores, slots, scratch.state, ~0u, ErrorSite{}, scratch.select};
  if ((error = select(wanted, stream))) return error;
  const ChosenScores chosen{runs, scratch.scores, dim, args.keys, args.scores};
  return choose("grow_choose", chosen, slots, scratch.state, scratch.choose, stream);
}

}  // namespace recsparse::cuda
