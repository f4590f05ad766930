// One functor per optimiser, shared by every op that updates weights. V is a float, or a vector of floats with the usual
// operators and `divide_by_root(m, v, eps)` = m / (sqrt(v) + eps) found by argument-dependent look-up.
#pragma once

#include "macros.h"

namespace recsparse {

// Lazy Adam: bias correction by the global step, as torch.optim.SparseAdam. The coefficients of a step are folded once.
struct AdamStep {
  float one_minus_beta1;
  float one_minus_beta2;
  float step_size;  // lr * sqrt(1 - beta2^t) / (1 - beta1^t)
  float eps;
};

template <class V>
RS_INLINE void adam_update(const AdamStep& step, V gradient, V& weight, V& m, V& v) {
  m = m + (gradient - m) * V(step.one_minus_beta1);
  v = v + (gradient * gradient - v) * V(step.one_minus_beta2);
  weight = weight - V(step.step_size) * divide_by_root(m, v, V(step.eps));
}

}  // namespace recsparse
