#include <torch/library.h>

#include <tuple>

#include "cuda/lightgcn_step.h"
#include "torch/cuda_call.h"
#include "torch/lightgcn_args.h"
#include "torch/optimizer_args.h"

namespace recsparse {
namespace {

// What both ops are told of table, graph and triples. `faults` are those of users, pos and neg, in this order.
struct Prepared {
  cuda::LightgcnArgs args{};
  at::Tensor hidden;

  Prepared(const CudaCall& device, const LightgcnCall& call, bool half_hidden, cuda::Fault faults) {
    args.table = check_lightgcn(call, device.device());
    args.value_type = value_type(call.values);
    args.graph = call.graph();
    args.edges = call.neighbours.numel();
    args.layers = static_cast<int>(call.layers);
    args.half = half_hidden;
    const int64_t count = call.users.numel(), items = call.rows - call.item_offset;
    const auto fault = [&](int number) { return static_cast<cuda::Fault>(static_cast<int>(faults) + number); };
    args.triples = {call.users.const_data_ptr<int64_t>(),
                    call.pos.const_data_ptr<int64_t>(),
                    call.neg.const_data_ptr<int64_t>(),
                    count,
                    call.item_offset,
                    call.rows,
                    device.site(fault(0), call.item_offset, count, 0),
                    device.site(fault(1), items, count, 0),
                    device.site(fault(2), items, count, 0)};
    args.batch_size = call.batch_size;
    if (count == 0) return;
    // One layer needs one array: its only products start from unpacked rows and end in the optimiser.
    const int64_t arrays = call.layers > 1 ? 2 : 1;
    const auto type = half_hidden ? at::kBFloat16 : at::kFloat;
    hidden = at::empty({arrays, call.rows, call.dim}, call.values.options().dtype(type));
    args.hidden[0] = hidden.mutable_data_ptr();
    args.hidden[1] = static_cast<char*>(args.hidden[0]) + (arrays - 1) * hidden.nbytes() / arrays;
  }
};

at::Tensor lightgcn_step_cuda(at::Tensor& values, at::Tensor& state, at::Tensor& step, const at::Tensor& index,
                              const at::Tensor& cols, const at::Tensor& offsets, const at::Tensor& neighbours,
                              const at::Tensor& node, const at::Tensor& slot, const at::Tensor& scale,
                              const at::Tensor& chunks, const at::Tensor& users, const at::Tensor& pos,
                              const at::Tensor& neg, int64_t kind, int64_t rows, int64_t dim, int64_t item_offset,
                              int64_t batch_size, int64_t layers, bool half_hidden, int64_t optimizer, double lr,
                              double beta1, double beta2, double eps, double weight_decay, double l2, int64_t seed) {
  const char* op = "lightgcn_step_";
  const CudaCall call(op, values);
  const OptimizerOptions options = check_optimizer(op, optimizer, lr, beta1, beta2, eps, weight_decay);
  check_state(op, "state", state, options.kind, values.numel(), rows, call.device());
  check_step(op, step, call.device());
  Prepared prepared(call,
                    {op, values, index, cols, offsets, neighbours, node, slot, scale, chunks, users, pos, neg, kind,
                     rows, dim, item_offset, batch_size, layers},
                    half_hidden, cuda::Fault::lightgcn_step_users);
  at::Tensor loss = at::empty({(users.numel() + batch_size - 1) / batch_size}, state.options());
  if (loss.numel() == 0) return loss;
  cuda::LightgcnStepArgs args;
  args.base = prepared.args;
  args.base.values = values.mutable_data_ptr();
  args.state = state.mutable_data_ptr<float>();
  args.l2 = static_cast<float>(l2);
  args.optimizer = options;
  args.step = step.mutable_data_ptr<int64_t>();
  args.seed = static_cast<uint64_t>(seed);
  args.loss = loss.mutable_data_ptr<float>();
  at::Tensor workspace = call.workspace(cuda::lightgcn_step_workspace_bytes(args));
  args.base.workspace = workspace.mutable_data_ptr();
  call.check(cuda::lightgcn_step(args, call.stream()));
  call.finish();
  for (const at::Tensor* written : {&values, &state, &step}) mark_written(*written);
  return loss;
}

// Waits for the device once: the results are as long as there are candidates.
std::tuple<at::Tensor, at::Tensor> lightgcn_grow_scores_cuda(
    const at::Tensor& values, const at::Tensor& index, const at::Tensor& cols, const at::Tensor& offsets,
    const at::Tensor& neighbours, const at::Tensor& node, const at::Tensor& slot, const at::Tensor& scale,
    const at::Tensor& chunks, const at::Tensor& users, const at::Tensor& pos, const at::Tensor& neg, int64_t kind,
    int64_t rows, int64_t dim, int64_t item_offset, int64_t layers, bool half_hidden, int64_t limit) {
  const char* op = "lightgcn_grow_scores";
  const CudaCall call(op, values);
  TORCH_CHECK_VALUE(limit >= 0, op, ": limit is ", limit, ", expected at least 0");
  const int64_t count = users.numel();
  Prepared prepared(call,
                    {op, values, index, cols, offsets, neighbours, node, slot, scale, chunks, users, pos, neg, kind,
                     rows, dim, item_offset, std::max<int64_t>(1, count), layers},
                    half_hidden, cuda::Fault::lightgcn_grow_scores_users);
  const int64_t room = count == 0 ? 0 : std::min(limit, rows * dim);
  at::Tensor keys = at::empty({room}, users.options());
  at::Tensor scores = at::empty({room}, values.options().dtype(at::kFloat));
  if (room == 0) return {keys, scores};
  at::Tensor found = at::empty({1}, users.options());
  // The hidden array that is free at the end holds the scores of all slots, where it is wide enough.
  at::Tensor slots = half_hidden ? at::empty({rows, dim}, scores.options()) : at::Tensor();
  cuda::LightgcnGrowArgs args;
  args.base = prepared.args;
  args.base.values = const_cast<void*>(values.const_data_ptr());  // not written
  args.slots = half_hidden ? slots.mutable_data_ptr<float>() : nullptr;
  args.limit = room;
  args.keys = keys.mutable_data_ptr<int64_t>();
  args.scores = scores.mutable_data_ptr<float>();
  args.found = found.mutable_data_ptr<int64_t>();
  at::Tensor workspace = call.workspace(cuda::lightgcn_grow_workspace_bytes(args));
  args.base.workspace = workspace.mutable_data_ptr();
  call.check(cuda::lightgcn_grow_scores(args, call.stream()));
  const int64_t written = *found.cpu().const_data_ptr<int64_t>();
  check_device_errors(call.device());  // it has waited already
  return {keys.resize_({written}), scores.resize_({written})};
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("lightgcn_step_", lightgcn_step_cuda);
  m.impl("lightgcn_grow_scores", lightgcn_grow_scores_cuda);
}

}  // namespace recsparse
