// The pieces of lightgcn_step for one instruction set; see lightgcn_step.h. Include after an isa_*.h.
//
// T: type of the table's values, H: type of the hidden rows. Table rows go through the generic decoder: a step decodes a
// row once or twice and adds up dozens of neighbours for it.
#pragma once

#include <type_traits>

#include "cpu/gather_rows.h"
#include "cpu/lightgcn_step.h"
#include "cpu/update_row.h"
#include "cpu/vector_math.h"

namespace recsparse::RS_ISA {

constexpr int kRowVectors = kMaxDim / 16;

// In edges. With 32, which is best for spmm, a step with bfloat16 layers took 21.7 ms instead of 19 on Yelp2018.
constexpr int kNeighboursAhead = 64;

// ---- sums over neighbours --------------------------------------------------------------------------------------------

// The sum of the scaled gradients of the neighbours that are in the batch. Members are picked without a branch: one
// neighbour in ten is one, in no order that a predictor could learn.
RS_INLINE void gather_members(const LightgcnBatch& batch, int64_t begin, int64_t end, float* sum) {
  constexpr int kPicked = 128;
  const GraphView<int32_t>& graph = batch.args->graph;
  const int vectors = static_cast<int>(batch.stride / 16);
  F16 acc[kRowVectors];
  for (int v = 0; v < vectors; ++v) acc[v] = F16(0.0f);
  int32_t picked[kPicked];
  while (begin < end) {
    const int64_t stop = end - begin < kPicked ? end : begin + kPicked;
    int count = 0;
    for (int64_t e = begin; e < stop; ++e) {
      const uint32_t node = static_cast<uint32_t>(graph.neighbours[e]);
      picked[count] = static_cast<int32_t>(node);
      count += static_cast<int>(batch.member[node >> 6] >> (node & 63) & 1);
    }
    begin = stop;
    for (int i = 0; i < count; ++i) {
      const float* row = batch.gradient + batch.number[picked[i]] * batch.stride;
      const F16 scale(graph.scale[picked[i]]);
      for (int v = 0; v < vectors; ++v) acc[v] = fma(load(row + 16 * v), scale, acc[v]);
    }
  }
  for (int v = 0; v < vectors; ++v) store(sum + 16 * v, acc[v]);
}

// sum[0, dim), and zeros up to a multiple of 16. `last`: see gather_rows.h.
template <class H>
RS_INLINE void gather_layer(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t begin, int64_t end,
                            int64_t last, float* sum) {
  if (!layer.from) return gather_members(batch, begin, end, sum);
  const int dim = batch.args->table.layout.dim;
  for (int column = 0; column < dim; column += kGatherColumns) {
    const int columns = dim - column < kGatherColumns ? dim - column : kGatherColumns;
    gather_block<false, kNeighboursAhead>(batch.args->graph, static_cast<const H*>(layer.from) + column, dim, columns,
                                          begin, end, last,
                                          [&](int c, F16 part, auto...) { store(sum + column + c, part); });
  }
}

template <class H>
static void lightgcn_segment(const LightgcnBatch& batch, const LightgcnLayer& layer, const Segment& segment,
                             float* sum) {
  alignas(64) float part[kMaxDim];
  gather_layer<H>(batch, layer, segment.begin, segment.end, segment.end - 1, part);
  for (int64_t c = 0; c < batch.stride; c += 16) store(sum + c, load(part + c));
}

// Runs sink.finish for the rows of slots, or for one row whose segments are there.
template <class H, class Sink>
RS_INLINE void layer_rows(Sink&& sink, int64_t begin, int64_t end) {
  const GraphView<int32_t>& graph = sink.batch.args->graph;
  alignas(64) float sum[kMaxDim];
  const int64_t last = graph.offsets[graph.nodes] - 1;
  for (int64_t slot = begin; slot < end; ++slot) {
    if (slot + 1 < end) sink.fetch(graph.node[slot + 1]);
    gather_layer<H>(sink.batch, sink.layer, graph.offsets[slot], graph.offsets[slot + 1], last, sum);
    sink.finish(graph.node[slot], sum);
  }
}
template <class Sink>
RS_INLINE void layer_join(Sink&& sink, int64_t slot, const float* sums, int64_t count) {
  const int64_t stride = sink.batch.stride;
  alignas(64) float sum[kMaxDim];
  for (int64_t c = 0; c < stride; c += 16) {
    F16 all = load(sums + c);
    for (int64_t k = 1; k < count; ++k) all = all + load(sums + k * stride + c);
    store(sum + c, all);
  }
  sink.finish(sink.batch.args->graph.node[slot], sum);
}

// ---- what becomes of a sum -------------------------------------------------------------------------------------------

struct SinkBase {
  const LightgcnBatch& batch;
  const LightgcnLayer& layer;
  const int dim;
  SinkBase(const LightgcnBatch& batch, const LightgcnLayer& layer)
      : batch(batch), layer(layer), dim(batch.args->table.layout.dim) {}
  RS_INLINE_MEMBER void fetch(int64_t) {}
  // A dense row that `finish` will read or write: what is summed up meanwhile hides the wait for it.
  template <class H, bool Write = false>
  RS_INLINE_MEMBER void fetch_row(const void* rows, int64_t node) const {
    const char* row = reinterpret_cast<const char*>(static_cast<const H*>(rows) + node * dim);
    for (int64_t b = 0; b < dim * static_cast<int64_t>(sizeof(H)); b += 64)
      Write ? prefetch_write(row + b) : prefetch(row + b);
  }
  RS_INLINE_MEMBER float scale(int64_t node) const { return batch.args->graph.scale[node]; }
  // The gradient of a row of the batch with respect to the mean of the layers, or null.
  RS_INLINE_MEMBER const float* own_gradient(int64_t node) const {
    return batch.member[node >> 6] >> (node & 63) & 1 ? batch.gradient + batch.number[node] * batch.stride : nullptr;
  }
};

// Calls each(c, row) with the vectors of a packed row, unpacked.
template <class T, class Each>
RS_INLINE void unpacked_row(const LightgcnArgs& args, int64_t node, bool far, Each&& each) {
  const RowRef<0> ref = read_row(args.table, node);
  const T* p = static_cast<const T*>(args.values) + ref.start;
  const int vectors = chunk_count<0>(args.table.layout.dim);
  for (int v = 0; v < vectors; ++v) {
    const uint32_t mask = chunk_mask(ref, v);
    each(16 * v, load_chunk<IndexKind::bits>(p, mask, far));
    p += popcount64(mask);
  }
}

// Next layer of the forward, scaled: s (e + s sum).
template <class T, class H>
struct ForwardSink : SinkBase {
  using SinkBase::SinkBase;
  RS_INLINE_MEMBER void fetch(int64_t node) {
    if (layer.base) {
      fetch_row<H>(layer.base, node);
    } else {
      const RowRef<0> ref = read_row(batch.args->table, node);
      prefetch_span<false>(static_cast<const T*>(batch.args->values) + ref.start, ref.count);
    }
    fetch_row<H, true>(layer.to, node);
  }
  RS_INLINE_MEMBER void finish(int64_t node, const float* sum) {
    const F16 s(scale(node)), square(scale(node) * scale(node));
    H* to = static_cast<H*>(layer.to) + node * dim;
    if (layer.base) {
      const H* base = static_cast<const H*>(layer.base) + node * dim;
      for_each_vector(dim, [&](int64_t c, uint32_t lanes) {
        store(to + c, fma(load(sum + c), square, load(base + c, lanes)), lanes);
      });
      return;
    }
    unpacked_row<T>(*batch.args, node, batch.far, [&](int c, F16 row) {
      store(to + c, s * fma(load(sum + c), s, row), static_cast<uint32_t>(low_bits(dim - c) & 0xffff));
    });
  }
};

// Next layer of the backward, scaled: s (g + s sum).
template <class H>
struct BackwardSink : SinkBase {
  using SinkBase::SinkBase;
  RS_INLINE_MEMBER void fetch(int64_t node) { fetch_row<H, true>(layer.to, node); }
  RS_INLINE_MEMBER void finish(int64_t node, const float* sum) {
    const F16 s(scale(node));
    H* to = static_cast<H*>(layer.to) + node * dim;
    const float* own = own_gradient(node);
    for_each_vector(dim, [&](int64_t c, uint32_t lanes) {
      F16 row = load(sum + c) * s;
      if (own) row = row + load(own + c);
      store(to + c, s * row, lanes);
    });
  }
};

// The gradient of a layer-0 row, g + s sum, at its kept columns to the optimiser.
template <class T, class Step>
struct UpdateSink : SinkBase {
  const Step step;
  UpdateSink(const LightgcnBatch& batch, const LightgcnLayer& layer, const Step& step)
      : SinkBase(batch, layer), step(step) {}
  RS_INLINE_MEMBER void fetch(int64_t node) {
    const LightgcnArgs& args = *batch.args;
    const RowRef<0> ref = read_row(args.table, node);
    prefetch_span<true>(static_cast<T*>(args.values) + ref.start, ref.count);
    if (Step::kState) prefetch_span<true, 3>(args.state + Step::kState * ref.start, Step::kState * ref.count);
  }
  RS_INLINE_MEMBER void finish(int64_t node, const float* sum) {
    const LightgcnArgs& args = *batch.args;
    const RowRef<0> ref = read_row(args.table, node);
    const float* own = own_gradient(node);
    const F16 s(scale(node));
    alignas(64) float packed[kMaxDim + 16];  // vectors are stored whole
    float* out = packed;
    for (int c = 0; c < dim; c += 16) {
      const uint32_t mask = chunk_mask(ref, c / 16);
      F16 row = load(sum + c) * s;
      if (own) row = row + load(own + c);
      store(out, compress(row, mask));
      out += popcount64(mask);
    }
    float pull = 0.0f;
    if (own) {
      const int64_t number = batch.number[node];
      pull = args.l2 * batch.inverse_count * static_cast<float>(batch.first[number + 1] - batch.first[number]);
    }
    update_row(step, static_cast<T*>(args.values), args.state, node, ref.start, ref.count, batch.far,
               rounding_key(batch.rounding, node), [&](uint32_t c, F16 weight) {
                 const uint32_t lanes = static_cast<uint32_t>(low_bits(static_cast<int>(ref.count - c)) & 0xffff);
                 return fma(weight, F16(pull), load(packed + c, lanes));
               });
  }
};

// The largest |gradient| of slots that are not kept.
template <class T>
struct GrowSink : SinkBase {
  using SinkBase::SinkBase;
  RS_INLINE_MEMBER void finish(int64_t node, const float* sum) {
    const RowRef<0> ref = read_row(batch.args->table, node);
    const float* own = own_gradient(node);
    const F16 s(scale(node)), floor(layer.grow->floor());
    GrowCandidate found[kMaxDim];
    int count = 0;
    for (int c = 0; c < dim; c += 16) {
      F16 row = load(sum + c) * s;
      if (own) row = row + load(own + c);
      const F16 magnitude = abs(row);
      uint32_t candidates =
          greater(magnitude, floor) & ~chunk_mask(ref, c / 16) & static_cast<uint32_t>(low_bits(dim - c) & 0xffff);
      if (!candidates) continue;
      alignas(64) float score[16];
      store(score, magnitude);
      for (; candidates; candidates &= candidates - 1) {
        const int lane = __builtin_ctz(candidates);
        found[count++] = GrowCandidate{node * dim + c + lane, score[lane]};
      }
    }
    layer.grow->offer(found, count);
  }
};

template <class T, class H>
static void forward_rows(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t begin, int64_t end) {
  layer_rows<H>(ForwardSink<T, H>(batch, layer), begin, end);
}
template <class T, class H>
static void forward_join(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t slot, const float* sums,
                         int64_t count) {
  layer_join(ForwardSink<T, H>(batch, layer), slot, sums, count);
}
template <class H>
static void backward_rows(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t begin, int64_t end) {
  layer_rows<H>(BackwardSink<H>(batch, layer), begin, end);
}
template <class H>
static void backward_join(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t slot, const float* sums,
                          int64_t count) {
  layer_join(BackwardSink<H>(batch, layer), slot, sums, count);
}
template <class T, class H>
static void update_rows(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t begin, int64_t end) {
  with_step(batch.args->optimizer, batch.step, false, [&](const auto& step) {
    layer_rows<H>(UpdateSink<T, std::decay_t<decltype(step)>>(batch, layer, step), begin, end);
  });
}
template <class T>
static void update_join(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t slot, const float* sums,
                        int64_t count) {
  with_step(batch.args->optimizer, batch.step, false, [&](const auto& step) {
    layer_join(UpdateSink<T, std::decay_t<decltype(step)>>(batch, layer, step), slot, sums, count);
  });
}
template <class T, class H>
static void grow_rows(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t begin, int64_t end) {
  layer_rows<H>(GrowSink<T>(batch, layer), begin, end);
}
template <class T>
static void grow_join(const LightgcnBatch& batch, const LightgcnLayer& layer, int64_t slot, const float* sums,
                      int64_t count) {
  layer_join(GrowSink<T>(batch, layer), slot, sums, count);
}

// ---- the rest of a mini-batch ----------------------------------------------------------------------------------------

// Layer 0, scaled.
template <class T, class H>
static void unpack_scaled(const LightgcnBatch& batch, void* to, int64_t begin, int64_t end) {
  const int dim = batch.args->table.layout.dim;
  for (int64_t node = begin; node < end; ++node) {
    const F16 s(batch.args->graph.scale[node]);
    H* row = static_cast<H*>(to) + node * dim;
    unpacked_row<T>(*batch.args, node, batch.far, [&](int c, F16 part) {
      store(row + c, s * part, static_cast<uint32_t>(low_bits(dim - c) & 0xffff));
    });
  }
}

// The mean of the layers for the distinct rows [begin, end).
template <class T, class H>
static void forward_batch(const LightgcnBatch& batch, const void* from, int64_t begin, int64_t end) {
  const LightgcnArgs& args = *batch.args;
  const LightgcnLayer layer{from, nullptr, nullptr, nullptr};
  const F16 share(1.0f / static_cast<float>(args.layers + 1));
  const int64_t* offsets = args.graph.offsets;
  const auto slot_of = [&](int64_t k) { return static_cast<int64_t>(batch.keys[batch.first[k]] >> batch.shift); };
  alignas(64) float sum[kMaxDim];
  for (int64_t k = begin; k < end; ++k) {
    const int64_t slot = slot_of(k), node = args.graph.node[slot];
    // The next row of the batch is not the next slot: what its first neighbours take is asked for here.
    if (layer.from && k + 1 < end) {
      const int64_t next = slot_of(k + 1), degree = offsets[next + 1] - offsets[next];
      const int64_t stop = offsets[next] + (degree < kNeighboursAhead ? degree : kNeighboursAhead);
      for (int64_t e = offsets[next]; e < stop; ++e) {
        prefetch_span<false>(static_cast<const H*>(from) + args.graph.neighbours[e] * args.table.layout.dim,
                             args.table.layout.dim);
      }
    }
    gather_layer<H>(batch, layer, offsets[slot], offsets[slot + 1], offsets[slot + 1] - 1, sum);
    const F16 s(args.graph.scale[node]);
    float* out = batch.out + k * batch.stride;
    unpacked_row<T>(args, node, batch.far, [&](int c, F16 row) { store(out + c, share * fma(load(sum + c), s, row)); });
  }
}

// Losses and their derivatives; `begin` is a multiple of kLightgcnTriples.
static void lightgcn_score(const LightgcnBatch& batch, int64_t begin, int64_t end) {
  const int64_t offset = batch.args->item_offset;
  const auto row = [&](int64_t node) { return batch.out + batch.number[node] * batch.stride; };
  double loss = 0;
  for (int64_t t = begin; t < end; t += 16) {
    const int live = end - t < 16 ? static_cast<int>(end - t) : 16;
    alignas(64) float difference[16] = {}, softplus[16];
    for (int i = 0; i < live; ++i) {
      const float* user = row(batch.users[t + i]);
      const float* pos = row(offset + batch.pos[t + i]);
      const float* neg = row(offset + batch.neg[t + i]);
      F16 dot(0.0f);
      for (int64_t c = 0; c < batch.stride; c += 16) dot = fma(load(user + c), load(neg + c) - load(pos + c), dot);
      difference[i] = reduce_add(dot);
    }
    const LogisticLoss out = logistic_loss(load(difference));
    store(softplus, out.softplus);
    for (int i = 0; i < live; ++i) loss += softplus[i];
    store(batch.coefficient + t, out.sigmoid * F16(batch.inverse_count), static_cast<uint32_t>(low_bits(live)));
  }
  batch.chunk_loss[begin / kLightgcnTriples] = loss;
}

// The gradient of each distinct row with respect to the mean of the layers, divided by the number of layers. Occurrences
// are summed in ascending order.
static void lightgcn_row_gradients(const LightgcnBatch& batch, int64_t begin, int64_t end) {
  const int64_t offset = batch.args->item_offset;
  const uint64_t occurrence = low_bits(batch.shift);
  const F16 share(1.0f / static_cast<float>(batch.args->layers + 1));
  const int vectors = static_cast<int>(batch.stride / 16);
  const auto row = [&](int64_t node) { return batch.out + batch.number[node] * batch.stride; };
  for (int64_t k = begin; k < end; ++k) {
    F16 acc[kRowVectors];
    for (int v = 0; v < vectors; ++v) acc[v] = F16(0.0f);
    for (int64_t o = batch.first[k]; o < batch.first[k + 1]; ++o) {
      const int64_t at = static_cast<int64_t>(batch.keys[o] & occurrence), t = at / 3;
      const float coefficient = batch.coefficient[t];
      if (at % 3 == 0) {
        const float* pos = row(offset + batch.pos[t]);
        const float* neg = row(offset + batch.neg[t]);
        const F16 factor(coefficient);
        for (int v = 0; v < vectors; ++v) acc[v] = fma(load(neg + 16 * v) - load(pos + 16 * v), factor, acc[v]);
      } else {
        const float* user = row(batch.users[t]);
        const F16 factor(at % 3 == 1 ? -coefficient : coefficient);
        for (int v = 0; v < vectors; ++v) acc[v] = fma(load(user + 16 * v), factor, acc[v]);
      }
    }
    for (int v = 0; v < vectors; ++v) store(batch.gradient + k * batch.stride + 16 * v, share * acc[v]);
  }
}

template <class H>
constexpr LightgcnHidden lightgcn_hidden() {
  return LightgcnHidden{
      lightgcn_segment<H>,
      {backward_rows<H>, backward_join<H>},
      {unpack_scaled<float, H>, unpack_scaled<Half, H>, unpack_scaled<BFloat16, H>},
      {{forward_rows<float, H>, forward_join<float, H>},
       {forward_rows<Half, H>, forward_join<Half, H>},
       {forward_rows<BFloat16, H>, forward_join<BFloat16, H>}},
      {forward_batch<float, H>, forward_batch<Half, H>, forward_batch<BFloat16, H>},
      {{update_rows<float, H>, update_join<float>},
       {update_rows<Half, H>, update_join<Half>},
       {update_rows<BFloat16, H>, update_join<BFloat16>}},
      {{grow_rows<float, H>, grow_join<float>},
       {grow_rows<Half, H>, grow_join<Half>},
       {grow_rows<BFloat16, H>, grow_join<BFloat16>}},
  };
}

}  // namespace recsparse::RS_ISA
