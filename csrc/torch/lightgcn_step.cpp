#include "cpu/lightgcn_step.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "torch/lightgcn_args.h"
#include "torch/optimizer_args.h"

namespace recsparse {
namespace {

// What both ops are told of table, graph and triples; the tensors that they work in.
struct Prepared {
  LightgcnArgs args{};
  at::Tensor hidden, workspace;
};

void prepare(Prepared& out, const LightgcnCall& call, bool half_hidden) {
  LightgcnArgs& args = out.args;
  args.table = check_lightgcn(call);
  check_triples(call.op, call.users, call.pos, call.neg, call.rows, call.item_offset);
  const int64_t count = call.users.numel();
  args.value_type = value_type(call.values);
  args.capacity = call.values.numel();
  args.graph = call.graph();
  args.layers = static_cast<int>(call.layers);
  args.hidden_type = half_hidden ? ValueType::bfloat16 : ValueType::float32;
  args.users = call.users.const_data_ptr<int64_t>();
  args.pos = call.pos.const_data_ptr<int64_t>();
  args.neg = call.neg.const_data_ptr<int64_t>();
  args.count = count;
  args.batch_size = call.batch_size;
  args.item_offset = call.item_offset;
  if (count == 0) return;
  // One layer needs one array: its only products start from unpacked rows and end in the optimiser.
  const int64_t arrays = call.layers > 1 ? 2 : 1;
  out.hidden =
      empty_huge({arrays, call.rows, call.dim}, call.values.options().dtype(half_hidden ? at::kBFloat16 : at::kFloat));
  args.hidden[0] = out.hidden.mutable_data_ptr();
  args.hidden[1] =
      static_cast<char*>(args.hidden[0]) + (arrays - 1) * call.rows * call.dim * value_bytes(args.hidden_type);
  out.workspace = at::empty({lightgcn_workspace_bytes(args)}, call.values.options().dtype(at::kByte));
  args.workspace = out.workspace.mutable_data_ptr();
}

at::Tensor lightgcn_step_cpu(at::Tensor& values, at::Tensor& state, at::Tensor& step, const at::Tensor& index,
                             const at::Tensor& cols, const at::Tensor& offsets, const at::Tensor& neighbours,
                             const at::Tensor& node, const at::Tensor& slot, const at::Tensor& scale,
                             const at::Tensor& chunks, const at::Tensor& users, const at::Tensor& pos,
                             const at::Tensor& neg, int64_t kind, int64_t rows, int64_t dim, int64_t item_offset,
                             int64_t batch_size, int64_t layers, bool half_hidden, int64_t optimizer, double lr,
                             double beta1, double beta2, double eps, double weight_decay, double l2, int64_t seed) {
  const char* op = "lightgcn_step_";
  const OptimizerOptions options = check_optimizer(op, optimizer, lr, beta1, beta2, eps, weight_decay);
  check_state(op, "state", state, options.kind, values.numel(), rows);
  check_step(op, step);
  Prepared call;
  prepare(call,
          {op, values, index, cols, offsets, neighbours, node, slot, scale, chunks, users, pos, neg, kind, rows, dim,
           item_offset, batch_size, layers},
          half_hidden);
  at::Tensor loss = at::empty({(call.args.count + batch_size - 1) / batch_size}, state.options());
  call.args.values = values.mutable_data_ptr();
  call.args.state = state.mutable_data_ptr<float>();
  call.args.optimizer = options;
  call.args.l2 = static_cast<float>(l2);
  call.args.step = *step.const_data_ptr<int64_t>();
  call.args.seed = static_cast<uint64_t>(seed);
  call.args.loss = loss.mutable_data_ptr<float>();
  lightgcn_step(call.args, op_threads());
  *step.mutable_data_ptr<int64_t>() += loss.numel();
  for (const at::Tensor* written : {&values, &state, &step}) mark_written(*written);
  return loss;
}

std::tuple<at::Tensor, at::Tensor> lightgcn_grow_scores_cpu(
    const at::Tensor& values, const at::Tensor& index, const at::Tensor& cols, const at::Tensor& offsets,
    const at::Tensor& neighbours, const at::Tensor& node, const at::Tensor& slot, const at::Tensor& scale,
    const at::Tensor& chunks, const at::Tensor& users, const at::Tensor& pos, const at::Tensor& neg, int64_t kind,
    int64_t rows, int64_t dim, int64_t item_offset, int64_t layers, bool half_hidden, int64_t limit) {
  const char* op = "lightgcn_grow_scores";
  TORCH_CHECK_VALUE(limit >= 0, op, ": limit is ", limit, ", expected at least 0");
  Prepared call;
  prepare(call,
          {op, values, index, cols, offsets, neighbours, node, slot, scale, chunks, users, pos, neg, kind, rows, dim,
           item_offset, std::max<int64_t>(1, users.numel()), layers},
          half_hidden);
  call.args.values = const_cast<void*>(values.const_data_ptr());  // not written
  const int64_t room = std::min(limit, rows * dim);
  at::Tensor keys = at::empty({room}, users.options());
  at::Tensor scores = at::empty({room}, values.options().dtype(at::kFloat));
  const int64_t found = lightgcn_grow_scores(call.args, room, keys.mutable_data_ptr<int64_t>(),
                                             scores.mutable_data_ptr<float>(), op_threads());
  return {keys.resize_({found}), scores.resize_({found})};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "lightgcn_step_(Tensor(a!) values, Tensor(b!) state, Tensor(c!) step, Tensor index, Tensor cols, Tensor offsets, "
      "Tensor neighbours, Tensor node, Tensor slot, Tensor scale, Tensor chunks, Tensor users, Tensor pos, Tensor neg, "
      "int kind, int rows, int dim, int item_offset, int batch_size, int layers, bool half_hidden, int optimizer, "
      "float "
      "lr, float beta1, float beta2, float eps, float weight_decay, float l2, int seed) -> Tensor");
  m.def(
      "lightgcn_grow_scores(Tensor values, Tensor index, Tensor cols, Tensor offsets, Tensor neighbours, Tensor node, "
      "Tensor slot, Tensor scale, Tensor chunks, Tensor users, Tensor pos, Tensor neg, int kind, int rows, int dim, "
      "int "
      "item_offset, int layers, bool half_hidden, int limit) -> (Tensor keys, Tensor scores)");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("lightgcn_step_", lightgcn_step_cpu);
  m.impl("lightgcn_grow_scores", lightgcn_grow_scores_cpu);
}

}  // namespace recsparse
