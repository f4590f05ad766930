#include <torch/library.h>

#include "cpu/row_sort.h"
#include "cuda/bpr_step.h"
#include "torch/cuda_call.h"
#include "torch/optimizer_args.h"
#include "torch/triples.h"

namespace recsparse {
namespace {

at::Tensor bpr_step_cuda(at::Tensor& values, at::Tensor& state, at::Tensor& step, const at::Tensor& index,
                         const at::Tensor& cols, const at::Tensor& users, const at::Tensor& pos, const at::Tensor& neg,
                         int64_t kind, int64_t rows, int64_t dim, int64_t item_offset, int64_t batch_size,
                         int64_t optimizer, double lr, double beta1, double beta2, double eps, double weight_decay,
                         double l2, int64_t seed) {
  const char* op = "bpr_step_";
  const CudaCall call(op, values);
  const TableView table = check_table(op, index, cols, values, kind, rows, dim, call.device());
  const OptimizerOptions options = check_optimizer(op, optimizer, lr, beta1, beta2, eps, weight_decay);
  check_state(op, "state", state, options.kind, values.numel(), rows, call.device());
  check_step(op, step, call.device());
  TORCH_CHECK_VALUE(batch_size >= 1, "bpr_step_: batch_size is ", batch_size, ", expected at least 1");
  check_triple_shapes(op, users, pos, neg, rows, item_offset, call.device());
  const int64_t count = users.numel();
  TORCH_CHECK_VALUE(bits_for(rows) + bits_for(3 * std::min(batch_size, count)) <= 64 && batch_size < 1ll << 30,
                    "bpr_step_: batch_size ", batch_size, " is too large for a table of ", rows, " rows");

  at::Tensor loss = at::empty({(count + batch_size - 1) / batch_size}, state.options());
  cuda::BprStepArgs args;
  args.table = table;
  args.value_type = value_type(values);
  args.values = values.mutable_data_ptr();
  args.state = state.mutable_data_ptr<float>();
  args.triples = {users.const_data_ptr<int64_t>(),
                  pos.const_data_ptr<int64_t>(),
                  neg.const_data_ptr<int64_t>(),
                  count,
                  item_offset,
                  rows,
                  call.site(cuda::Fault::bpr_step_users, item_offset, count, 0),
                  call.site(cuda::Fault::bpr_step_pos, rows - item_offset, count, 0),
                  call.site(cuda::Fault::bpr_step_neg, rows - item_offset, count, 0)};
  args.batch_size = batch_size;
  args.l2 = static_cast<float>(l2);
  args.optimizer = options;
  args.step = step.mutable_data_ptr<int64_t>();
  args.seed = static_cast<uint64_t>(seed);
  args.loss = loss.mutable_data_ptr<float>();
  args.workspace = nullptr;
  at::Tensor workspace = call.workspace(cuda::bpr_step_workspace_bytes(args));
  args.workspace = workspace.mutable_data_ptr();
  call.check(cuda::bpr_step(args, call.stream()));
  call.finish();
  for (const at::Tensor* written : {&values, &state, &step}) mark_written(*written);
  return loss;
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) { m.impl("bpr_step_", bpr_step_cuda); }

}  // namespace recsparse
