// A mini-batch of LightGCN beside its products: which rows it has, their scores, and their gradients with respect to the mean
// of the layers.
#pragma once

#include "cuda/bpr_score.cuh"
#include "cuda/lightgcn_step.h"
#include "cuda/row_keys.cuh"
#include "cuda/runs.cuh"

namespace recsparse::cuda {

// What every kernel of a mini-batch knows. Its distinct rows are numbered by ascending id.
struct LightgcnView {
  DeviceTable table;
  GraphView<int32_t> graph;
  const uint32_t* bad;
  int32_t* number;       // [nodes] 1 + place of a row of the mini-batch in what follows, 0: it has no such row
  float* out;            // [rows, stride] mean of the layers
  float* gradient;       // [rows, stride] with respect to it, divided by the number of layers
  int32_t* occurrences;  // [rows] in the mini-batch
  float* coefficient;    // [triples] dL/d(s_neg - s_pos)
  int64_t stride;        // columns rounded up to whole vectors
  float share;           // 1 / (layers + 1)
  bool half;             // hidden rows are bfloat16
  bool whole;            // hidden rows can be moved four columns at a time
  RS_INLINE_MEMBER int64_t place(int64_t node) const { return static_cast<int64_t>(number[node]) - 1; }
};

// Grid: grid_for(count), one triple a thread and stride. Bytes moved: 24 read and 24 written a triple.
static __global__ void __launch_bounds__(kThreads)
    lightgcn_keys_kernel(BprTriples triples, int64_t begin, int64_t count, int shift, const uint32_t* bad,
                         uint64_t* keys) {
  if (*bad) return;
  for (int64_t t = global_thread(); t < count; t += global_threads()) {
    const Triple triple = triple_at(triples, begin + t);
    const uint64_t occurrence = static_cast<uint64_t>(3 * t);
    keys[3 * t] = static_cast<uint64_t>(triple.user) << shift | occurrence;
    keys[3 * t + 1] = static_cast<uint64_t>(triple.pos) << shift | (occurrence + 1);
    keys[3 * t + 2] = static_cast<uint64_t>(triple.neg) << shift | (occurrence + 2);
  }
}

// Whether a key is the first of its row. Grid: grid_for(keys), one a thread and stride. Bytes moved: 16 a key.
static __global__ void __launch_bounds__(kThreads)
    lightgcn_heads_kernel(Runs runs, const uint32_t* bad, uint64_t* heads) {
  if (*bad) return;
  for (int64_t at = global_thread(); at < runs.count; at += global_threads()) {
    heads[at] = at == 0 || run_row(runs, at - 1) != run_row(runs, at);
  }
}

// Numbers the rows from the sums of `heads` before each key; `number` is 0 before. Grid: grid_for(keys), one a thread and
// stride. Bytes moved: 16 a key, 4 a row.
static __global__ void __launch_bounds__(kThreads)
    lightgcn_numbers_kernel(Runs runs, const uint32_t* bad, const uint64_t* before, int32_t* number) {
  if (*bad) return;
  for (int64_t at = global_thread(); at < runs.count; at += global_threads()) {
    const int64_t row = run_row(runs, at);
    if (at == 0 || run_row(runs, at - 1) != row) number[row] = static_cast<int32_t>(before[at]) + 1;
  }
}

// The lane's columns of a row of out or gradient.
template <int W>
struct BatchRow {
  using Dense = DenseRow<float, W>;
  Vector<float> x[Dense::kChunks];
  __device__ __forceinline__ float at(int i) const { return x[i / 4].x[i % 4]; }
};

// Row `place` of `rows`, zeros for place -1.
template <int W>
__device__ __forceinline__ BatchRow<W> batch_row(const float* rows, int64_t place, int64_t stride) {
  using Dense = DenseRow<float, W>;
  BatchRow<W> row;
#pragma unroll
  for (int c = 0; c < Dense::kChunks; ++c) {
    const int64_t column = Dense::column(c);
    row.x[c] = load_vector(rows + place * stride + column, place < 0 ? 0 : static_cast<int>(stride - column), true);
  }
  return row;
}

// Grid: grid_for(triples); a group of lanes takes a triple. Bytes moved, a triple: 24 of ids, 12 of places, 12 stride of rows
// that the product before has just written, 8 written.
template <int W>
__global__ void __launch_bounds__(kThreads, 4)
    lightgcn_score_kernel(LightgcnView view, BprTriples triples, int64_t begin, int64_t count, float* softplus) {
  if (*view.bad) return;
  using Dense = DenseRow<float, W>;
  constexpr int G = Dense::kLanes;
  const float inverse_count = 1.0f / static_cast<float>(count);
  const int64_t groups = global_threads() / G, rounds = (count + groups - 1) / groups;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t t = global_thread() / G + round * groups;
    const bool live = t < count;
    const Triple triple = live ? triple_at(triples, begin + t) : Triple{0, 0, 0};
    const BatchRow<W> user = batch_row<W>(view.out, live ? view.place(triple.user) : -1, view.stride);
    const BatchRow<W> pos = batch_row<W>(view.out, live ? view.place(triple.pos) : -1, view.stride);
    const BatchRow<W> neg = batch_row<W>(view.out, live ? view.place(triple.neg) : -1, view.stride);
    float dot = 0;
#pragma unroll
    for (int i = 0; i < 4 * Dense::kChunks; ++i) dot = ::fmaf(user.at(i), neg.at(i) - pos.at(i), dot);
    const LogisticLoss loss = logistic_loss(group_sum<G>(dot));
    if (!live || threadIdx.x % G != 0) continue;
    view.coefficient[t] = loss.sigmoid * inverse_count;
    softplus[begin + t] = loss.softplus;
  }
}

// The gradient of a row of the mini-batch (runs.cuh). Bytes moved: 4 stride and 20 of ids and coefficient an occurrence (twice
// the row for a user), 4 stride written a row.
template <int W>
struct LightgcnRowGradients {
  using Dense = DenseRow<float, W>;
  using Place = int64_t;
  static constexpr int kLanes = Dense::kLanes, kSums = 4 * Dense::kChunks;

  LightgcnView view;
  const int64_t *users, *pos, *neg;  // of the mini-batch
  int64_t item_offset;

  __device__ bool skip() const { return *view.bad != 0; }
  __device__ Place begin(int64_t row, int64_t, int64_t) const { return row < 0 ? -1 : view.place(row); }
  __device__ BatchRow<W> row(int64_t node) const { return batch_row<W>(view.out, view.place(node), view.stride); }
  __device__ void add(const Place&, int64_t occurrence, float* sums) const {
    const int64_t t = occurrence / 3;
    const int role = static_cast<int>(occurrence - 3 * t);
    const float coefficient = view.coefficient[t];
    if (role == 0) {
      const BatchRow<W> liked = row(item_offset + pos[t]), other = row(item_offset + neg[t]);
#pragma unroll
      for (int i = 0; i < kSums; ++i) sums[i] = ::fmaf(other.at(i) - liked.at(i), coefficient, sums[i]);
    } else {
      const BatchRow<W> user = row(users[t]);
      const float factor = role == 1 ? -coefficient : coefficient;
#pragma unroll
      for (int i = 0; i < kSums; ++i) sums[i] = ::fmaf(user.at(i), factor, sums[i]);
    }
  }
  __device__ void finish(const Place& place, int64_t row, int count, const float* sums) const {
    if (row < 0) return;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      Vector<float> x;
#pragma unroll
      for (int i = 0; i < 4; ++i) x.x[i] = view.share * sums[4 * c + i];
      const int64_t column = Dense::column(c);
      store_vector(view.gradient + place * view.stride + column, x, static_cast<int>(view.stride - column), true);
    }
    if (threadIdx.x % kLanes == 0) view.occurrences[place] = count;
  }
};

}  // namespace recsparse::cuda
