// The products of LightGCN with the graph, by what becomes of the sum over a node's neighbours. All are ops of
// neighbour_sums.cuh; a lane owns four columns of a float row or eight, whatever the type of the hidden rows.
#pragma once

#include "cuda/lightgcn_batch.cuh"
#include "cuda/neighbour_sums.cuh"
#include "cuda/update_row.cuh"

namespace recsparse::cuda {

// Four columns of hidden rows of H: 16 or 8 bytes a lane, so that a group reads whole lines.
template <class H>
struct alignas(4 * sizeof(H)) HiddenFour {
  H x[4];
};

template <class H>
__device__ __forceinline__ HiddenFour<H> load_four(const H* p, int columns, bool whole) {
  HiddenFour<H> four{};
  if (whole && columns > 0) return *reinterpret_cast<const HiddenFour<H>*>(p);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < columns) four.x[i] = p[i];
  }
  return four;
}

template <class H>
__device__ __forceinline__ void store_four(H* p, const float* x, int columns, bool whole) {
  HiddenFour<H> four;
#pragma unroll
  for (int i = 0; i < 4; ++i) four.x[i] = narrow(H{}, x[i]);
  if (whole && columns > 0) {
    *reinterpret_cast<HiddenFour<H>*>(p) = four;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < columns) p[i] = four.x[i];
  }
}

// The lane's columns of a node's hidden row.
template <int W>
__device__ __forceinline__ void store_hidden(const LightgcnView& view, void* to, int64_t node, const float* x) {
  using Dense = DenseRow<float, W>;
  const int dim = view.table.layout.dim;
#pragma unroll
  for (int c = 0; c < Dense::kChunks; ++c) {
    const int column = Dense::column(c);
    const int64_t at = node * dim + column;
    if (view.half) {
      store_four(static_cast<BFloat16*>(to) + at, x + 4 * c, dim - column, view.whole);
    } else {
      store_four(static_cast<float*>(to) + at, x + 4 * c, dim - column, view.whole);
    }
  }
}

// Hidden rows of all neighbours.
template <class H, int W>
struct HiddenEdges {
  using Dense = DenseRow<float, W>;
  using Id = int32_t;
  static constexpr int kLanes = Dense::kLanes;
  static constexpr bool kFactors = false;
  struct Edge {
    Id row;
    float factor;
  };
  struct Part {
    HiddenFour<H> chunks[Dense::kChunks];
  };

  const LightgcnView& view;
  const H* from;

  __device__ Edge edge(int64_t at) const { return Edge{view.graph.neighbours[at], 0.0f}; }
  __device__ Part load(Id row) const {
    Part part;
    const int dim = view.table.layout.dim;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const int column = Dense::column(c);
      part.chunks[c] = load_four(from + static_cast<int64_t>(row) * dim + column, dim - column, view.whole);
    }
    return part;
  }
  __device__ void accumulate(const Part& part, float, float* sums) const {
#pragma unroll
    for (int i = 0; i < 4 * Dense::kChunks; ++i) sums[i] += widen(part.chunks[i / 4].x[i % 4]);
  }
};

// The gradients of the neighbours that are in the mini-batch, scaled.
template <int W>
struct MemberEdges {
  using Dense = DenseRow<float, W>;
  using Id = int32_t;
  using Part = BatchRow<W>;
  static constexpr int kLanes = Dense::kLanes;
  static constexpr bool kFactors = true;
  struct Edge {
    Id row;
    float factor;
  };

  const LightgcnView& view;

  __device__ Edge edge(int64_t at) const {
    const int32_t node = view.graph.neighbours[at];
    return Edge{view.number[node] - 1, view.graph.scale[node]};
  }
  __device__ Part load(Id row) const { return batch_row<W>(view.gradient, row, view.stride); }
  __device__ void accumulate(const Part& part, float factor, float* sums) const {
#pragma unroll
    for (int i = 0; i < 4 * Dense::kChunks; ++i) sums[i] = ::fmaf(part.at(i), factor, sums[i]);
  }
};

// What the ops share: a sum over hidden rows, or, for `from` null, over gradients of the mini-batch. Bytes moved, an edge: its
// id and a hidden row; of the mini-batch's gradients, its id, 8 more, and the row of a member.
template <int W>
struct LightgcnProduct {
  using Index = int32_t;
  using Dense = DenseRow<float, W>;
  static constexpr int kLanes = Dense::kLanes, kSums = 4 * Dense::kChunks, kBlocks = W == 8 ? 2 : 4;

  LightgcnView view;
  const void* from;

  __device__ bool skip() const { return *view.bad != 0; }
  __device__ int64_t rows() const { return view.graph.nodes; }
  __device__ int64_t slot(int64_t i) const { return i; }
  __device__ bool wanted(int64_t) const { return true; }
  __device__ void add(int64_t begin, int64_t end, float* sums) const {
    if (from == nullptr) {
      add_neighbours(MemberEdges<W>{view}, begin, end, sums);
    } else if (view.half) {
      add_neighbours(HiddenEdges<BFloat16, W>{view, static_cast<const BFloat16*>(from)}, begin, end, sums);
    } else {
      add_neighbours(HiddenEdges<float, W>{view, static_cast<const float*>(from)}, begin, end, sums);
    }
  }

  __device__ static bool writes() { return threadIdx.x % 32 < kLanes; }
  __device__ Row<W> locate(int64_t node) const { return locate_row<W, kLanes>(view.table, node); }
  // The gradient of a layer: g + s sum.
  __device__ void layer_gradient(int64_t node, const float* sums, float* x) const {
    const float s = view.graph.scale[node];
    const BatchRow<W> own = batch_row<W>(view.gradient, view.place(node), view.stride);
#pragma unroll
    for (int i = 0; i < kSums; ++i) x[i] = s * sums[i] + own.at(i);
  }
};

// The next layer of the forward pass, scaled: s (e + s sum). Bytes moved besides, a node: an index block, the kept values, a
// hidden row written.
template <class T, int W>
struct LightgcnForward : LightgcnProduct<W> {
  const T* values;
  void* to;
  __device__ void finish(int64_t node, const float* sums) const {
    using Product = LightgcnProduct<W>;
    const float s = this->view.graph.scale[node];
    const Spread<W> row = spread_row<T, W>(values, this->locate(node));
    float x[Product::kSums];
#pragma unroll
    for (int i = 0; i < Product::kSums; ++i) x[i] = s * ::fmaf(sums[i], s, row.x[i]);
    if (Product::writes()) store_hidden<W>(this->view, to, node, x);
  }
};

// The mean of the layers for the rows of the mini-batch: (e + s sum) / (K + 1).
template <class T, int W>
struct LightgcnMean : LightgcnProduct<W> {
  const T* values;
  Runs runs;
  __device__ int64_t rows() const { return runs.count; }
  __device__ int64_t slot(int64_t i) const {
    const int64_t row = run_row(runs, i);
    return i > 0 && run_row(runs, i - 1) == row ? -1 : this->view.graph.slot[row];
  }
  __device__ bool wanted(int64_t node) const { return this->view.number[node] != 0; }
  __device__ void finish(int64_t node, const float* sums) const {
    using Dense = DenseRow<float, W>;
    const LightgcnView& view = this->view;
    const float s = view.graph.scale[node];
    const Spread<W> row = spread_row<T, W>(values, this->locate(node));
    if (!LightgcnProduct<W>::writes()) return;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      Vector<float> x;
#pragma unroll
      for (int i = 0; i < 4; ++i) x.x[i] = view.share * ::fmaf(sums[4 * c + i], s, row.x[4 * c + i]);
      const int64_t column = Dense::column(c);
      store_vector(view.out + view.place(node) * view.stride + column, x, static_cast<int>(view.stride - column), true);
    }
  }
};

// The next layer of the backward pass, scaled: s (g + s sum). Bytes moved besides, a node: a hidden row written.
template <int W>
struct LightgcnBackward : LightgcnProduct<W> {
  void* to;
  __device__ void finish(int64_t node, const float* sums) const {
    using Product = LightgcnProduct<W>;
    float x[Product::kSums];
    this->layer_gradient(node, sums, x);
#pragma unroll
    for (int i = 0; i < Product::kSums; ++i) x[i] *= this->view.graph.scale[node];
    if (Product::writes()) store_hidden<W>(this->view, to, node, x);
  }
};

// The gradient of a row of layer 0, at its kept columns, to the optimiser. Bytes moved besides, a node: an index block, and the
// kept weights and state, read and written.
template <class T, class Step, int W>
struct LightgcnUpdate : LightgcnProduct<W> {
  Step step;
  T* values;
  float* state;
  const StepNumbers* numbers;
  float decay;  // of the regulariser, an occurrence
  __device__ void finish(int64_t node, const float* sums) const {
    using Product = LightgcnProduct<W>;
    using Dense = DenseRow<float, W>;
    const LightgcnView& view = this->view;
    float x[Product::kSums];
    this->layer_gradient(node, sums, x);
    const int64_t place = view.place(node);
    const float pull = place < 0 ? 0.0f : decay * static_cast<float>(view.occurrences[place]);
    const Row<W> ref = this->locate(node);
    ColumnBits columns[Dense::kChunks];
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      columns[c] = column_bits(ref, Dense::column(c));
      if (!Product::writes()) columns[c].bits = 0;
    }
    const auto kept = [&](int n) {
      const uint32_t bits = columns[n / 4].bits;
      return bits >> (n % 4) & 1 ? columns[n / 4].before + __popc(bits & ((1u << (n % 4)) - 1)) : -1;
    };
    const StepNumbers now = *numbers;
    update_row<Dense::kLanes, Product::kSums>(at_step(step, now), now.rounding, values, state,
                                              Product::writes() ? node : -1, ref.start, ref.count, kept,
                                              [&](int n, float weight) { return ::fmaf(weight, pull, x[n]); });
  }
};

// The magnitudes of a row's gradient where it keeps nothing, 0 elsewhere. Bytes moved besides, a node: an index block, 4 dim
// written.
template <int W>
struct LightgcnGrow : LightgcnProduct<W> {
  float* slots;
  unsigned long long* positive;  // scores above 0
  __device__ void finish(int64_t node, const float* sums) const {
    using Product = LightgcnProduct<W>;
    using Dense = DenseRow<float, W>;
    const int dim = this->view.table.layout.dim;
    float x[Product::kSums];
    this->layer_gradient(node, sums, x);
    const Row<W> ref = this->locate(node);
    int found = 0;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const int column = Dense::column(c);
      const ColumnBits kept = column_bits(ref, column);
      Vector<float> score;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float magnitude = ::fabsf(x[4 * c + i]);
        const bool candidate = Product::writes() && column + i < dim && !(kept.bits >> i & 1) && magnitude > 0;
        score.x[i] = candidate ? magnitude : 0.0f;
        found += __popc(__ballot_sync(kWholeWarp, candidate));
      }
      if (Product::writes()) store_vector(slots + node * dim + column, score, dim - column, this->view.whole);
    }
    if (found > 0 && threadIdx.x % 32 == 0) atomicAdd(positive, static_cast<unsigned long long>(found));
  }
};

// Layer 0, scaled. Grid: grid_for(nodes); a group of lanes takes a node. Bytes moved, a node: an index block, the kept values,
// a hidden row written.
template <class T, int W>
__global__ void __launch_bounds__(kThreads, 4) lightgcn_unpack_kernel(LightgcnView view, const T* values, void* to) {
  if (*view.bad) return;
  constexpr int G = DenseRow<float, W>::kLanes;
  const int64_t groups = global_threads() / G, rounds = (view.graph.nodes + groups - 1) / groups;
  for (int64_t round = 0; round < rounds; ++round) {
    int64_t node = global_thread() / G + round * groups;
    if (node >= view.graph.nodes) node = -1;
    Spread<W> row = spread_row<T, W>(values, locate_row<W, G>(view.table, node));
    if (node < 0) continue;
    const float s = view.graph.scale[node];
#pragma unroll
    for (int i = 0; i < Spread<W>::kOwn; ++i) row.x[i] *= s;
    store_hidden<W>(view, to, node, row.x);
  }
}

}  // namespace recsparse::cuda
