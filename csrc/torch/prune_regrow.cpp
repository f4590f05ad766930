#include "cpu/prune_regrow.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>

#include "torch/check.h"

namespace recsparse {

static void check_result(const PruneRegrowResult& result, const PruneRegrowArgs& args) {
  const int64_t at = result.position, value = result.value;
  switch (result.status) {
    case PruneRegrowStatus::ok: return;
    case PruneRegrowStatus::bad_nnz:
      TORCH_CHECK_VALUE(false, "prune_regrow_: the index counts ", value, " values, but capacity is ", args.capacity);
    case PruneRegrowStatus::bad_drop:
      TORCH_CHECK_VALUE(false, "prune_regrow_: drop = ", args.drop, ", expected 0 <= drop <= ", value,
                        " (the number of kept weights)");
    case PruneRegrowStatus::key_range:
      TORCH_CHECK_VALUE(false, "prune_regrow_: keys[", at, "] = ", args.keys[at], ", expected 0 <= key < ",
                        args.layout.rows * args.layout.dim, " (rows * dim)");
    case PruneRegrowStatus::key_order:
      TORCH_CHECK_VALUE(false, "prune_regrow_: keys[", at, "] = ", args.keys[at], " follows ", args.keys[at - 1],
                        ", expected ascending keys without duplicates");
    case PruneRegrowStatus::key_kept:
      TORCH_CHECK_VALUE(false, "prune_regrow_: keys[", at, "] = ", args.keys[at],
                        " is a kept weight, expected keys of slots that are not kept");
    case PruneRegrowStatus::score_infinite:
      TORCH_CHECK_VALUE(false, "prune_regrow_: scores[", at, "] is ", args.scores[at], ", expected finite scores");
    case PruneRegrowStatus::no_capacity:
      TORCH_CHECK_VALUE(false, "prune_regrow_: ", value, " weights would be kept, but capacity is ", args.capacity,
                        "; drop more or grow less");
    case PruneRegrowStatus::weight_nan:
      TORCH_CHECK_VALUE(false, "prune_regrow_: ", value, " kept weights are NaN, the first at position ", at,
                        "; expected numbers");
  }
}

static at::Tensor prune_regrow_cpu(at::Tensor& index, at::Tensor& cols, at::Tensor& values,
                                   const std::optional<at::Tensor>& state, const at::Tensor& keys,
                                   const at::Tensor& scores, int64_t kind, int64_t rows, int64_t dim, int64_t drop,
                                   int64_t grow) {
  const char* op = "prune_regrow_";
  const Layout layout = check_table(op, index, cols, values, kind, rows, dim).layout;
  TORCH_CHECK_VALUE(layout.kind == IndexKind::bits || layout.kind == IndexKind::cols8, op, ": index kind ", kind,
                    " has no free choice of kept weights, expected 2 (bits) or 3 (cols8)");
  check_vector(keys, op, "keys", at::kLong);
  check_vector(scores, op, "scores", at::kFloat);
  TORCH_CHECK_VALUE(scores.numel() == keys.numel(), op, ": scores has ", scores.numel(), " entries, expected ",
                    keys.numel(), " as keys");
  int per_weight = 0;
  if (state) {
    check_vector(*state, op, "state", at::kFloat);
    const int64_t capacity = values.numel();
    per_weight = state->numel() == 2 * capacity ? 2 : 1;
    TORCH_CHECK_VALUE(state->numel() == per_weight * capacity, op, ": state has ", state->numel(),
                      " entries, expected capacity = ", capacity, " or twice as many");
  }
  TORCH_CHECK_VALUE(grow >= 0, op, ": grow = ", grow, ", expected grow >= 0");
  PruneRegrowArgs args;
  args.layout = layout;
  args.index = reinterpret_cast<uint64_t*>(index.mutable_data_ptr<int64_t>());
  args.cols = cols.mutable_data_ptr<uint8_t>();
  args.value_type = value_type(values);
  args.values = values.mutable_data_ptr();
  args.state = state ? state->mutable_data_ptr<float>() : nullptr;
  args.state_per_weight = per_weight;
  args.capacity = values.numel();
  args.keys = keys.const_data_ptr<int64_t>();
  args.scores = scores.const_data_ptr<float>();
  args.candidates = keys.numel();
  args.drop = drop;
  args.grow = grow;
  const PruneRegrowResult result = prune_regrow(args, op_threads());
  check_result(result, args);
  at::Tensor counts = at::empty({2}, keys.options());
  int64_t* out = counts.mutable_data_ptr<int64_t>();
  out[0] = result.dropped;
  out[1] = result.grown;
  return counts;
}

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "prune_regrow_(Tensor(a!) index, Tensor(b!) cols, Tensor(c!) values, Tensor(d!)? state, Tensor keys, "
      "Tensor scores, int kind, int rows, int dim, int drop, int grow) -> Tensor");
}
TORCH_LIBRARY_IMPL(recsparse, CPU, m) { m.impl("prune_regrow_", prune_regrow_cpu); }

}  // namespace recsparse
