// One step of an optimiser on one packed row. Include after an isa_*.h.
#pragma once

#include "core/update.h"
#include "cpu/row_access.h"

namespace recsparse::RS_ISA {

// Where a row's state begins; its n kept weights have their k-th floats at [k * n, (k + 1) * n) from there.
template <class Step>
RS_INLINE float* state_of(float* state, uint64_t start) {
  return state + Step::kState * start;
}

// `gradient(c)` gives the gradient of the row's kept weights [c, c + 16), with zeros behind the last. far: see is_far.
template <class T, class Step, class Gradient>
RS_INLINE void update_row(const Step& step, T* values, float* state, int64_t row, uint64_t start, uint32_t count,
                          bool far, Gradient&& gradient) {
  T* w = values + start;
  float* s = state_of<Step>(state, start);
  F16 gradients[Step::kRowState ? kMaxDim / 16 : 1], row_state(0.0f);
  if constexpr (Step::kRowState) {
    if (count == 0) return;
    F16 squares(0.0f);
    for (uint32_t c = 0; c < count; c += 16) {
      const int n = count - c < 16 ? static_cast<int>(count - c) : 16;
      gradients[c / 16] = decayed(step, gradient(c), load_values(w + c, n, far));
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
    for (int k = 0; k < Step::kState; ++k) own[k] = load_values(s + k * count + c, n, far);
    if constexpr (Step::kRowState) {
      own[0] = row_state;
      update(step, gradients[c / 16], weight, own);
    } else {
      update(step, decayed(step, gradient(c), weight), weight, own);
    }
    store_values(w + c, weight, n, far);
    for (int k = 0; k < Step::kState; ++k) store_values(s + k * count + c, own[k], n, far);
    c += 16;
  } while (c < count);
}

}  // namespace recsparse::RS_ISA
