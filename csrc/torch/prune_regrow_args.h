// Checks of the arguments of `prune_regrow_`, and its errors, shared by the backends.
#pragma once

#include <ATen/ops/select.h>

#include <optional>

#include "core/prune_status.h"
#include "torch/check.h"

namespace recsparse {

struct PruneRegrowCall {
  const at::Tensor& index;
  const at::Tensor& cols;
  const at::Tensor& values;
  const std::optional<at::Tensor>& state;
  const at::Tensor& keys;
  const at::Tensor& scores;
  int64_t kind, rows, dim, drop, grow;
};

inline int floats_per_weight(const PruneRegrowCall& call) {
  if (!call.state) return 0;
  return call.state->numel() == 2 * call.values.numel() ? 2 : 1;
}

inline Layout check_prune_regrow(const PruneRegrowCall& call, c10::Device device = at::kCPU) {
  const char* op = "prune_regrow_";
  const Layout layout =
      check_table(op, call.index, call.cols, call.values, call.kind, call.rows, call.dim, device).layout;
  TORCH_CHECK_VALUE(layout.kind == IndexKind::bits || layout.kind == IndexKind::cols8, op, ": index kind ", call.kind,
                    " has no free choice of kept weights, expected 2 (bits) or 3 (cols8)");
  check_vector(call.keys, op, "keys", at::kLong, device);
  check_vector(call.scores, op, "scores", at::kFloat, device);
  TORCH_CHECK_VALUE(call.scores.numel() == call.keys.numel(), op, ": scores has ", call.scores.numel(),
                    " entries, expected ", call.keys.numel(), " as keys");
  if (call.state) {
    check_vector(*call.state, op, "state", at::kFloat, device);
    const int64_t capacity = call.values.numel();
    TORCH_CHECK_VALUE(call.state->numel() == floats_per_weight(call) * capacity, op, ": state has ",
                      call.state->numel(), " entries, expected capacity = ", capacity, " or twice as many");
  }
  TORCH_CHECK_VALUE(call.grow >= 0, op, ": grow = ", call.grow, ", expected grow >= 0");
  return layout;
}

inline void check_prune_regrow_result(const PruneRegrowResult& result, const PruneRegrowCall& call) {
  const int64_t at = result.position, value = result.value;
  const auto key = [&](int64_t i) { return call.keys.select(0, i).item<int64_t>(); };
  switch (result.status) {
    case PruneRegrowStatus::ok: return;
    case PruneRegrowStatus::bad_nnz:
      TORCH_CHECK_VALUE(false, "prune_regrow_: the index counts ", value, " values, but capacity is ",
                        call.values.numel());
    case PruneRegrowStatus::bad_drop:
      TORCH_CHECK_VALUE(false, "prune_regrow_: drop = ", call.drop, ", expected 0 <= drop <= ", value,
                        " (the number of kept weights)");
    case PruneRegrowStatus::key_range:
      TORCH_CHECK_VALUE(false, "prune_regrow_: keys[", at, "] = ", key(at), ", expected 0 <= key < ",
                        call.rows * call.dim, " (rows * dim)");
    case PruneRegrowStatus::key_order:
      TORCH_CHECK_VALUE(false, "prune_regrow_: keys[", at, "] = ", key(at), " follows ", key(at - 1),
                        ", expected ascending keys without duplicates");
    case PruneRegrowStatus::key_kept:
      TORCH_CHECK_VALUE(false, "prune_regrow_: keys[", at, "] = ", key(at),
                        " is a kept weight, expected keys of slots that are not kept");
    case PruneRegrowStatus::score_infinite:
      TORCH_CHECK_VALUE(false, "prune_regrow_: scores[", at, "] is ", call.scores.select(0, at).item<float>(),
                        ", expected finite scores");
    case PruneRegrowStatus::no_capacity:
      TORCH_CHECK_VALUE(false, "prune_regrow_: ", value, " weights would be kept, but capacity is ",
                        call.values.numel(), "; drop more or grow less");
    case PruneRegrowStatus::weight_nan:
      TORCH_CHECK_VALUE(false, "prune_regrow_: ", value, " kept weights are NaN, the first at position ", at,
                        "; expected numbers");
  }
}

}  // namespace recsparse
