#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstring>

#include "cuda/prune_regrow.h"
#include "torch/cuda_call.h"
#include "torch/prune_regrow_args.h"

namespace recsparse {

// The host waits once, for the plan: it raises the errors and orders the launches.
static at::Tensor prune_regrow_cuda(at::Tensor& index, at::Tensor& cols, at::Tensor& values,
                                    const std::optional<at::Tensor>& state, const at::Tensor& keys,
                                    const at::Tensor& scores, int64_t kind, int64_t rows, int64_t dim, int64_t drop,
                                    int64_t grow) {
  const CudaCall call("prune_regrow_", values);
  const PruneRegrowCall given{index, cols, values, state, keys, scores, kind, rows, dim, drop, grow};
  const Layout layout = check_prune_regrow(given, call.device());
  cuda::PruneRegrowArgs args;
  args.layout = layout;
  args.index = reinterpret_cast<uint64_t*>(index.mutable_data_ptr<int64_t>());
  args.cols = cols.mutable_data_ptr<uint8_t>();
  args.value_type = value_type(values);
  args.values = values.mutable_data_ptr();
  args.state = state ? state->mutable_data_ptr<float>() : nullptr;
  args.state_per_weight = floats_per_weight(given);
  args.capacity = values.numel();
  args.keys = keys.const_data_ptr<int64_t>();
  args.scores = scores.const_data_ptr<float>();
  args.candidates = keys.numel();
  args.drop = drop;
  args.grow = grow;
  args.workspace = nullptr;
  at::Tensor workspace = call.workspace(cuda::prune_regrow_workspace_bytes(args));
  args.workspace = workspace.mutable_data_ptr();

  const int64_t slab_count = cuda::prune_regrow_slabs(layout) + 1;
  constexpr int64_t kPlanBytes = 256;
  static_assert(sizeof(cuda::PruneRegrowPlan) <= kPlanBytes, "the slabs lie behind the plan");
  at::Tensor planned = call.workspace(kPlanBytes + slab_count * static_cast<int64_t>(sizeof(cuda::SlabStart)));
  char* memory = static_cast<char*>(planned.mutable_data_ptr());
  call.check(cuda::prune_regrow_plan(args, reinterpret_cast<cuda::PruneRegrowPlan*>(memory),
                                     reinterpret_cast<cuda::SlabStart*>(memory + kPlanBytes), call.stream()));
  const at::Tensor copy = planned.cpu();
  const char* read = static_cast<const char*>(copy.const_data_ptr());
  cuda::PruneRegrowPlan plan;
  std::memcpy(&plan, read, sizeof(plan));
  check_prune_regrow_result(plan.result, given);

  const auto* slabs = reinterpret_cast<const cuda::SlabStart*>(read + kPlanBytes);
  at::Tensor scratch = call.workspace(cuda::prune_regrow_scratch_bytes(args, slabs));
  call.check(cuda::prune_regrow_rebuild(args, plan, slabs, scratch.mutable_data_ptr(), call.stream()));
  at::Tensor counts = at::empty({2}, at::TensorOptions().dtype(at::kLong));
  int64_t* out = counts.mutable_data_ptr<int64_t>();
  out[0] = plan.result.dropped;
  out[1] = plan.result.grown;
  return counts.to(call.device());
}

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) { m.impl("prune_regrow_", prune_regrow_cuda); }

}  // namespace recsparse
