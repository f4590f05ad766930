// Hyper-parameters of an optimiser, and the functors of core/update.h that they make for one step.
#pragma once

#include <cmath>
#include <cstdint>

#include "update.h"

namespace recsparse {

struct OptimizerOptions {
  Optimizer kind;
  double lr;
  double beta1, beta2;  // Adam
  double eps;           // all but SGD
  double weight_decay;
};

// Floats of state: a weight, and a row.
RS_INLINE int state_per_weight(Optimizer kind) {
  return kind == Optimizer::adam ? AdamStep::kState : kind == Optimizer::adagrad ? AdagradStep::kState : 0;
}
RS_INLINE int64_t state_floats(Optimizer kind, int64_t capacity, int64_t rows) {
  return kind == Optimizer::rowwise_adagrad ? rows : state_per_weight(kind) * capacity;
}

// Step number t, from 1. torch.optim.SparseAdam adds eps to sqrt(v), torch.optim.Adam to the corrected sqrt(v).
RS_INLINE AdamStep adam_step(const OptimizerOptions& options, int64_t t, bool lazy) {
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(t));
  const double root2 = std::sqrt(1 - std::pow(options.beta2, static_cast<double>(t)));
  return AdamStep{static_cast<float>(1 - options.beta1), static_cast<float>(1 - options.beta2),
                  static_cast<float>(options.lr * root2 / correction1),
                  static_cast<float>(lazy ? options.eps : options.eps * root2),
                  static_cast<float>(options.weight_decay)};
}

// Calls body with the functor of step t.
template <class Body>
static inline void with_step(const OptimizerOptions& options, int64_t t, bool lazy, Body&& body) {
  const float lr = static_cast<float>(options.lr), eps = static_cast<float>(options.eps);
  const float weight_decay = static_cast<float>(options.weight_decay);
  switch (options.kind) {
    case Optimizer::sgd: return body(SgdStep{lr, weight_decay});
    case Optimizer::adagrad: return body(AdagradStep{lr, eps, weight_decay});
    case Optimizer::rowwise_adagrad: return body(RowwiseAdagradStep{lr, eps, weight_decay});
    default: return body(adam_step(options, t, lazy));
  }
}

}  // namespace recsparse
