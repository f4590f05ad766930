// soft_threshold for one instruction set; see soft_threshold.h. Include after an isa_*.h.
#pragma once

#include <type_traits>

#include "cpu/prefetch.h"
#include "cpu/row_access.h"
#include "cpu/soft_threshold.h"
#include "cpu/vector_math.h"

namespace recsparse::RS_ISA {

constexpr int64_t kThresholdAhead = 8;  // rows

RS_INLINE F16 gate(F16 s) { return logistic_loss(s).sigmoid; }

// Calls each(position, c, value, gate, lanes) for the chunks of 16 columns of the rows at [begin, end), rows in order,
// and after(position) behind each row.
template <bool kByRow, bool kByColumn, class Each, class After>
RS_INLINE void thresholded_rows(const SoftThresholdArgs& args, int64_t begin, int64_t end, Each&& each, After&& after) {
  const int dim = static_cast<int>(args.dim), chunks = (dim + 15) / 16;
  const float* s = args.thresholds.s;
  const int64_t stride = kByColumn ? dim : 1;
  const auto lanes_of = [dim](int c) { return static_cast<uint32_t>(low_bits(dim - 16 * c) & 0xffff); };
  const auto row_at = [&](int64_t i) { return args.ids ? args.ids[i] : i; };
  F16 shared[kMaxDim / 16];
  if (!kByRow) {
    for (int c = 0; c < chunks; ++c) shared[c] = gate(kByColumn ? load(s + 16 * c, lanes_of(c)) : F16(s[0]));
  }
  for (int64_t i = begin; i < end; ++i) {
    if (args.ids && i + kThresholdAhead < end) {
      const int64_t next = args.ids[i + kThresholdAhead];
      prefetch_span(args.values + next * dim, static_cast<uint32_t>(dim));
      if (kByRow) prefetch_span(s + next * stride, static_cast<uint32_t>(stride));
    }
    const int64_t row = row_at(i);
    const F16 own = kByRow && !kByColumn ? gate(F16(s[row])) : F16(0.0f);
    for (int c = 0; c < chunks; ++c) {
      const uint32_t lanes = lanes_of(c);
      const F16 g = !kByRow ? shared[c] : kByColumn ? gate(load(s + row * stride + 16 * c, lanes)) : own;
      each(i, c, load(args.values + row * dim + 16 * c, lanes), g, lanes);
    }
    after(i);
  }
}

// Calls run(by_row, by_column), both known to the compiler.
template <class Run>
RS_INLINE void with_granularity(const Thresholds& thresholds, Run&& run) {
  using No = std::integral_constant<bool, false>;
  using Yes = std::integral_constant<bool, true>;
  if (thresholds.by_row) {
    thresholds.by_column ? run(Yes{}, Yes{}) : run(Yes{}, No{});
  } else {
    thresholds.by_column ? run(No{}, Yes{}) : run(No{}, No{});
  }
}

static void soft_threshold_forward(const SoftThresholdArgs& args, int64_t begin, int64_t end) {
  const F16 zero(0.0f);
  with_granularity(args.thresholds, [&](auto by_row, auto by_column) {
    thresholded_rows<by_row, by_column>(
        args, begin, end,
        [&](int64_t i, int c, F16 value, F16 g, uint32_t lanes) {
          const F16 left = max(zero, abs(value) - g);  // NaN stays NaN
          store(args.out + i * args.dim + 16 * c, select(greater(value, zero), left, zero - left), lanes);
        },
        [](int64_t) {});
  });
}

static void soft_threshold_backward(const SoftThresholdBackwardArgs& args, int64_t begin, int64_t end) {
  const SoftThresholdArgs& forward = args.forward;
  const int64_t dim = forward.dim;
  const int chunks = static_cast<int>((dim + 15) / 16);
  const F16 zero(0.0f);
  with_granularity(forward.thresholds, [&](auto by_row, auto by_column) {
    F16 sums[kMaxDim / 16];  // over the rows, by column; or, by row, over the columns, in the first one
    for (int c = 0; c < (by_row ? 1 : chunks); ++c) sums[c] = zero;
    thresholded_rows<by_row, by_column>(
        forward, begin, end,
        [&](int64_t i, int c, F16 value, F16 g, uint32_t lanes) {
          const int64_t at = i * dim + 16 * c;
          const uint32_t alive = greater(abs(value) - g, zero);
          const F16 grad = select(alive, load(args.grad + at, lanes), zero);
          const F16 slope = g * (F16(1.0f) - g) * grad;
          const F16 of_s = select(greater(value, zero), zero - slope, slope);
          store(args.grad_values + at, grad, lanes);
          if (by_row && by_column) {
            store(args.grad_thresholds + at, of_s, lanes);
          } else {
            F16& sum = sums[by_row ? 0 : c];
            sum = sum + of_s;
          }
        },
        [&](int64_t i) {
          if (!by_row || by_column) return;
          args.grad_thresholds[i] = reduce_add(sums[0]);
          sums[0] = zero;
        });
    if (by_row) return;
    float* partial = args.partial + begin / kThresholdChunk * dim;
    for (int c = 0; c < chunks; ++c) {
      store(partial + 16 * c, sums[c], static_cast<uint32_t>(low_bits(static_cast<int>(dim) - 16 * c) & 0xffff));
    }
  });
}

}  // namespace recsparse::RS_ISA
