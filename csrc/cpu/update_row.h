// One step of an optimiser on packed weights. Include after an isa_*.h.
#pragma once

#include "core/rounding.h"
#include "core/update.h"
#include "cpu/row_access.h"

namespace recsparse::RS_ISA {

// The state of n <= 16 weights, at p; kState vectors of it.
template <class Step>
RS_INLINE void load_state(const float* p, int n, bool far, F16* state) {
  if constexpr (Step::kState == 1) state[0] = load_values(p, n, far);
  if constexpr (Step::kState == 2) {
    const int low = n < 8 ? 2 * n : 16;
    const Pairs pairs = split_pairs({load_values(p, low, far), load_values(p + (n > 8 ? 16 : 0), 2 * n - low, far)});
    state[0] = pairs.a;
    state[1] = pairs.b;
  }
}
template <class Step>
RS_INLINE void store_state(float* p, int n, bool far, const F16* state) {
  if constexpr (Step::kState == 1) store_values(p, state[0], n, far);
  if constexpr (Step::kState == 2) {
    const int low = n < 8 ? 2 * n : 16;
    const Pairs pairs = join_pairs({state[0], state[1]});
    store_values(p, pairs.a, low, far);
    store_values(p + (n > 8 ? 16 : 0), pairs.b, 2 * n - low, far);  // nothing, where n <= 8: a branch would cost more
  }
}

// A row of `count` weights from `start`. `gradient(c, weight)` gives the gradient of its weights [c, c + 16), which
// are `weight`, and zeros behind the last. far: see is_far.
template <class T, class Step, class Gradient>
RS_INLINE void update_row(const Step& step, T* values, float* state, int64_t row, uint64_t start, uint32_t count,
                          bool far, RoundingKey rounding, Gradient&& gradient) {
  T* w = values + start;
  float* s = state + Step::kState * start;
  F16 gradients[Step::kRowState ? kMaxDim / 16 : 1], row_state(0.0f);
  if constexpr (Step::kRowState) {
    if (count == 0) return;
    F16 squares(0.0f);
    for (uint32_t c = 0; c < count; c += 16) {
      const int n = count - c < 16 ? static_cast<int>(count - c) : 16;
      const F16 weight = load_values(w + c, n, far);
      gradients[c / 16] = decayed(step, gradient(c, weight), weight);
      squares = fma(gradients[c / 16], gradients[c / 16], squares);
    }
    state[row] = row_update(step, state[row], reduce_add(squares) / static_cast<float>(count));
    row_state = F16(state[row]);
  }
  uint32_t c = 0;
  do {
    const int n = count - c < 16 ? static_cast<int>(count - c) : 16;
    F16 weight = load_values(w + c, n, far);
    F16 own[Step::kState + 1];  // one more, because no array is empty
    load_state<Step>(s + Step::kState * c, n, far, own);
    if constexpr (Step::kRowState) {
      own[0] = row_state;
      update(step, gradients[c / 16], weight, own);
    } else {
      update(step, decayed(step, gradient(c, weight), weight), weight, own);
    }
    store_weights(w + c, weight, n, far, rounding, c);
    store_state<Step>(s + Step::kState * c, n, far, own);
    c += 16;
  } while (c < count);
}

// `count` weights from `start`, whatever their rows: for optimisers without a state of the row, and floats, whose
// rounding does not depend on the row. `grad` is in packed order, from the same weight.
template <class Step>
RS_INLINE void update_run(const Step& step, float* values, float* state, uint64_t start, int64_t count,
                          const float* grad) {
  float* w = values + start;
  float* s = state + Step::kState * start;
  F16 own[Step::kState + 1];
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    F16 weight = load(w + i);
    if constexpr (Step::kState == 1) own[0] = load(s + i);
    if constexpr (Step::kState == 2) {
      const Pairs pairs = split_pairs({load(s + 2 * i), load(s + 2 * i + 16)});
      own[0] = pairs.a, own[1] = pairs.b;
    }
    update(step, decayed(step, load(grad + i), weight), weight, own);
    store(w + i, weight);
    if constexpr (Step::kState == 1) store(s + i, own[0]);
    if constexpr (Step::kState == 2) {
      const Pairs pairs = join_pairs({own[0], own[1]});
      store(s + 2 * i, pairs.a);
      store(s + 2 * i + 16, pairs.b);
    }
  }
  const int n = static_cast<int>(count - i);
  if (n == 0) return;
  F16 weight = load_values(w + i, n, false);
  load_state<Step>(s + Step::kState * i, n, false, own);
  update(step, decayed(step, load_values(grad + i, n, false), weight), weight, own);
  store_values(w + i, weight, n, false);
  store_state<Step>(s + Step::kState * i, n, false, own);
}

}  // namespace recsparse::RS_ISA
