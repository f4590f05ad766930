#include "cpu/prune_regrow.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "torch/prune_regrow_args.h"

namespace recsparse {

static at::Tensor prune_regrow_cpu(at::Tensor& index, at::Tensor& cols, at::Tensor& values,
                                   const std::optional<at::Tensor>& state, const at::Tensor& keys,
                                   const at::Tensor& scores, int64_t kind, int64_t rows, int64_t dim, int64_t drop,
                                   int64_t grow) {
  const PruneRegrowCall call{index, cols, values, state, keys, scores, kind, rows, dim, drop, grow};
  const Layout layout = check_prune_regrow(call);
  PruneRegrowArgs args;
  args.layout = layout;
  args.index = reinterpret_cast<uint64_t*>(index.mutable_data_ptr<int64_t>());
  args.cols = cols.mutable_data_ptr<uint8_t>();
  args.value_type = value_type(values);
  args.values = values.mutable_data_ptr();
  args.state = state ? state->mutable_data_ptr<float>() : nullptr;
  args.state_per_weight = floats_per_weight(call);
  args.capacity = values.numel();
  args.keys = keys.const_data_ptr<int64_t>();
  args.scores = scores.const_data_ptr<float>();
  args.candidates = keys.numel();
  args.drop = drop;
  args.grow = grow;
  const PruneRegrowResult result = prune_regrow(args, op_threads());
  check_prune_regrow_result(result, call);
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
