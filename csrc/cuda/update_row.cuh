// One step of an optimiser on the packed weights of a row, by a group of G lanes.
#pragma once

#include "core/half.h"
#include "core/optimizer.h"
#include "core/rounding.h"
#include "cuda/table.cuh"

namespace recsparse::cuda {

// A float as core/update.h wants its vectors.
struct Scalar {
  float x;
  RS_INLINE_MEMBER Scalar() : x(0) {}
  RS_INLINE_MEMBER Scalar(float value) : x(value) {}
};
RS_INLINE Scalar operator+(Scalar a, Scalar b) { return a.x + b.x; }
RS_INLINE Scalar operator-(Scalar a, Scalar b) { return a.x - b.x; }
RS_INLINE Scalar operator*(Scalar a, Scalar b) { return a.x * b.x; }
RS_INLINE Scalar fma(Scalar a, Scalar b, Scalar c) { return ::fmaf(a.x, b.x, c.x); }
RS_INLINE Scalar divide_by_root(Scalar m, Scalar v, Scalar eps) { return m.x / (::sqrtf(v.x) + eps.x); }

// What depends on the number of a step, which only the device knows: see `step_numbers`.
struct StepNumbers {
  float step_size, eps;  // Adam's
  RoundingStep rounding;
};

// Of step number t, from 1.
RS_INLINE StepNumbers step_numbers(const OptimizerOptions& options, int64_t t, bool lazy, uint64_t seed) {
  const AdamStep adam = options.kind == Optimizer::adam ? adam_step(options, t, lazy) : AdamStep{};
  return StepNumbers{adam.step_size, adam.eps, rounding_step(seed, t)};
}

template <class Step>
RS_INLINE Step at_step(Step step, const StepNumbers&) {
  return step;
}
RS_INLINE AdamStep at_step(AdamStep step, const StepNumbers& numbers) {
  step.step_size = numbers.step_size;
  step.eps = numbers.eps;
  return step;
}

// Calls body with the functor of an optimiser, but for the numbers of a step.
template <class Body>
void with_optimizer(const OptimizerOptions& options, Body&& body) {
  with_step(options, 1, true, body);
}

// Weights and state as one access each. T is the type of the values.
template <class T>
__device__ __forceinline__ void store_weight(T* p, float weight, RoundingKey key, uint32_t position) {
  *p = narrow(T{}, round_stochastic(T{}, weight, rounding_bits(key, position)));
}
__device__ __forceinline__ void store_weight(float* p, float weight, RoundingKey, uint32_t) { *p = weight; }

// `weight` and its state after a step.
template <class Step>
__device__ __forceinline__ float updated(const Step& step, float gradient, float weight, float* state,
                                         float row_state) {
  Scalar w(weight);
  if constexpr (Step::kState == 2) {
    const float2 before = *reinterpret_cast<const float2*>(state);
    Scalar own[2] = {before.x, before.y};
    update(step, Scalar(gradient), w, own);
    *reinterpret_cast<float2*>(state) = make_float2(own[0].x, own[1].x);
  } else if constexpr (Step::kState == 1) {
    Scalar own[1] = {*state};
    update(step, Scalar(gradient), w, own);
    *state = own[0].x;
  } else {
    Scalar own[1] = {row_state};
    update(step, Scalar(gradient), w, own);
  }
  return w.x;
}

// A row of `count` weights from `start`. The lane's weight number c is the row's kept weight `place(c)`, -1: none, and
// `gradient(c, weight)` its gradient. Called by whole warps; row = -1: no row. A lane asks for all its weights before it uses
// the first.
template <int G, int N, class T, class Step, class Place, class Gradient>
__device__ __forceinline__ void update_row(const Step& step, RoundingStep rounding, T* values, float* state,
                                           int64_t row, uint64_t start, int count, Place&& place, Gradient&& gradient) {
  T* w = values + start;
  float weight[N], gradients[N];
#pragma unroll
  for (int c = 0; c < N; ++c) weight[c] = place(c) >= 0 ? widen(w[place(c)]) : 0.0f;
  float row_state = 0;
  float squares = 0;
#pragma unroll
  for (int c = 0; c < N; ++c) {
    gradients[c] = place(c) >= 0 ? decayed(step, Scalar(gradient(c, weight[c])), Scalar(weight[c])).x : 0.0f;
    squares = ::fmaf(gradients[c], gradients[c], squares);
  }
  if constexpr (Step::kRowState) {
    squares = group_sum<G>(squares);
    if (row >= 0 && count > 0) row_state = row_update(step, state[row], squares / static_cast<float>(count));
    __syncwarp();  // every lane has read the old state
    if (row >= 0 && count > 0 && threadIdx.x % G == 0) state[row] = row_state;
  }
  const RoundingKey key = rounding_key(rounding, row);
  float* s = state + Step::kState * start;
#pragma unroll
  for (int c = 0; c < N; ++c) {
    if (place(c) < 0) continue;
    const float after = updated(step, gradients[c], weight[c], s + Step::kState * place(c), row_state);
    store_weight(w + place(c), after, key, static_cast<uint32_t>(place(c)));
  }
}

}  // namespace recsparse::cuda
