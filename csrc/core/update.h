// One functor per optimiser, shared by every op that updates weights: what one step does to one weight.
//
// V is a float, or a vector of floats with the usual operators, `fma` and `divide_by_root(m, v, eps)` = m / (sqrt(v) +
// eps), found by argument-dependent look-up. A functor's coefficients are folded once a step. `kState` is the number of
// floats of state a weight has; they lie side by side in the order of the values, so that a row's state is one run and a
// pass over all weights needs no row boundaries. `kRowState` says that a row has one float of state besides, which
// `row_update` moves before the weights of the row are updated.
#pragma once

#include <cstdint>

#include "macros.h"

namespace recsparse {

enum class Optimizer : int32_t { sgd = 0, adagrad = 1, rowwise_adagrad = 2, adam = 3 };
constexpr int kOptimizers = 4;

// w -= lr (g + weight_decay w)
struct SgdStep {
  static constexpr int kState = 0;
  static constexpr bool kRowState = false;
  float lr;
  float weight_decay;
};

// g += weight_decay w; sum += g^2; w -= lr g / (sqrt(sum) + eps)
struct AdagradStep {
  static constexpr int kState = 1;
  static constexpr bool kRowState = false;
  float lr;
  float eps;
  float weight_decay;
};

// Adagrad with one sum a row, of the mean of g^2 over the row's kept weights.
struct RowwiseAdagradStep {
  static constexpr int kState = 0;
  static constexpr bool kRowState = true;
  float lr;
  float eps;
  float weight_decay;
};

// Adam; the coefficients make it the lazy one of torch.optim.SparseAdam or the one of torch.optim.Adam.
struct AdamStep {
  static constexpr int kState = 2;
  static constexpr bool kRowState = false;
  float one_minus_beta1;
  float one_minus_beta2;
  float step_size;  // lr * sqrt(1 - beta2^t) / (1 - beta1^t)
  float eps;        // beside the uncorrected sqrt(v)
  float weight_decay;
};

// The gradient with the pull of the weight decay.
template <class Step, class V>
RS_INLINE V decayed(const Step& step, V gradient, V weight) {
  return fma(weight, V(step.weight_decay), gradient);
}

template <class V>
RS_INLINE void update(const SgdStep& step, V gradient, V& weight, V*) {
  weight = weight - V(step.lr) * gradient;
}

template <class V>
RS_INLINE void update(const AdagradStep& step, V gradient, V& weight, V* sum) {
  sum[0] = fma(gradient, gradient, sum[0]);
  weight = weight - V(step.lr) * divide_by_root(gradient, sum[0], V(step.eps));
}

RS_INLINE float row_update(const RowwiseAdagradStep&, float sum, float mean_square) { return sum + mean_square; }

// `sum` is the row's, after `row_update`, in every lane.
template <class V>
RS_INLINE void update(const RowwiseAdagradStep& step, V gradient, V& weight, V* sum) {
  weight = weight - V(step.lr) * divide_by_root(gradient, sum[0], V(step.eps));
}

template <class V>
RS_INLINE void update(const AdamStep& step, V gradient, V& weight, V* moments) {
  moments[0] = moments[0] + (gradient - moments[0]) * V(step.one_minus_beta1);
  moments[1] = moments[1] + (gradient * gradient - moments[1]) * V(step.one_minus_beta2);
  weight = weight - V(step.step_size) * divide_by_root(moments[0], moments[1], V(step.eps));
}

}  // namespace recsparse
