// Decoding and scoring of a triple by a group of lanes; shared by bpr_step_ and bpr_grow_scores.
#pragma once

#include "cuda/bpr_triples.h"
#include "cuda/errors.cuh"
#include "cuda/table.cuh"

namespace recsparse::cuda {

struct Triple {
  int64_t user, pos, neg;  // rows of the joint table; -1: none
};

__device__ __forceinline__ Triple triple_at(const BprTriples& triples, int64_t i) {
  return Triple{triples.users[i], triples.item_offset + triples.pos[i], triples.item_offset + triples.neg[i]};
}

// Reports bad ids, and sets `bad` if there is one. Grid: grid_for(count), one triple a thread and stride. Bytes moved: 24 a
// triple.
static __global__ void __launch_bounds__(kThreads) check_triples_kernel(BprTriples triples, uint32_t* bad) {
  const uint64_t users = static_cast<uint64_t>(triples.item_offset);
  const uint64_t items = static_cast<uint64_t>(triples.rows - triples.item_offset);
  for (int64_t i = global_thread(); i < triples.count; i += global_threads()) {
    const bool user = static_cast<uint64_t>(triples.users[i]) >= users;
    const bool pos = static_cast<uint64_t>(triples.pos[i]) >= items;
    const bool neg = static_cast<uint64_t>(triples.neg[i]) >= items;
    if (user) report(triples.bad_users, i, triples.users[i]);
    if (pos) report(triples.bad_pos, i, triples.pos[i]);
    if (neg) report(triples.bad_neg, i, triples.neg[i]);
    if (user || pos || neg) atomicOr(bad, 1u);
  }
}

inline void check_triples(const BprTriples& triples, uint32_t* bad, void* stream) {
  clear(bad, sizeof(uint32_t), stream);
  launch("check_triples", check_triples_kernel, grid_for(triples.count, kThreads), kThreads, stream, triples, bad);
}

// A row spread over the lanes of DenseRow<float, W>: the lane's columns, 0 where nothing is kept.
template <int W>
struct Spread {
  using Dense = DenseRow<float, W>;
  static constexpr int kOwn = Dense::kChunks * Dense::kVector;
  uint64_t start;
  int count;
  ColumnBits columns[Dense::kChunks];
  float x[kOwn];
};

template <class T, int W>
__device__ __forceinline__ Spread<W> spread_row(const T* values, const Row<W>& ref) {
  using Dense = DenseRow<float, W>;
  Spread<W> out;
  out.start = ref.start;
  out.count = ref.count;
#pragma unroll
  for (int c = 0; c < Dense::kChunks; ++c) {
    out.columns[c] = column_bits(ref, Dense::column(c));
    const T* value = values + ref.start + out.columns[c].before;
#pragma unroll
    for (int i = 0; i < Dense::kVector; ++i) {
      const uint32_t bits = out.columns[c].bits;
      out.x[c * Dense::kVector + i] = bits >> i & 1 ? widen(value[__popc(bits & ((1u << i) - 1))]) : 0.0f;
    }
  }
  return out;
}

template <int W>
struct SpreadTriple {
  Spread<W> user, pos, neg;

  // s_neg - s_pos, in every lane.
  __device__ __forceinline__ float difference() const {
    float dot = 0;
#pragma unroll
    for (int i = 0; i < Spread<W>::kOwn; ++i) dot = ::fmaf(user.x[i], neg.x[i] - pos.x[i], dot);
    return group_sum<DenseRow<float, W>::kLanes>(dot);
  }
};

// The rows of a triple: their index blocks are asked for together, then their values.
template <class T, IndexKind K, int W>
__device__ __forceinline__ SpreadTriple<W> spread_triple(const DeviceTable& table, const T* values,
                                                         const Triple& triple) {
  constexpr int G = DenseRow<float, W>::kLanes;
  const BlockWords<G> blocks[3] = {load_block<K, W, G>(table, triple.user), load_block<K, W, G>(table, triple.pos),
                                   load_block<K, W, G>(table, triple.neg)};
  Row<W> user = decode_block<K, W, G>(table, blocks[0], triple.user);
  Row<W> pos = decode_block<K, W, G>(table, blocks[1], triple.pos);
  Row<W> neg = decode_block<K, W, G>(table, blocks[2], triple.neg);
  complete_row<K, W, G>(table, user);
  complete_row<K, W, G>(table, pos);
  complete_row<K, W, G>(table, neg);
  return SpreadTriple<W>{spread_row<T, W>(values, user), spread_row<T, W>(values, pos), spread_row<T, W>(values, neg)};
}

struct LogisticLoss {
  float sigmoid, softplus;
};
__device__ __forceinline__ LogisticLoss logistic_loss(float x) {
  const float e = ::expf(-::fabsf(x)), small = e / (1.0f + e);
  return LogisticLoss{x > 0 ? 1.0f - small : small, ::fmaxf(x, 0.0f) + ::log1pf(e)};
}

}  // namespace recsparse::cuda
