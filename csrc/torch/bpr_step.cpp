#include "cpu/bpr_step.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "cpu/row_sort.h"
#include "torch/optimizer_args.h"
#include "torch/triples.h"

namespace recsparse {
namespace {

at::Tensor bpr_step_cpu(at::Tensor& values, at::Tensor& state, at::Tensor& step, const at::Tensor& index,
                        const at::Tensor& cols, const at::Tensor& users, const at::Tensor& pos, const at::Tensor& neg,
                        int64_t kind, int64_t rows, int64_t dim, int64_t item_offset, int64_t batch_size,
                        int64_t optimizer, double lr, double beta1, double beta2, double eps, double weight_decay,
                        double l2, int64_t seed) {
  const TableView table = check_table("bpr_step_", index, cols, values, kind, rows, dim);
  const OptimizerOptions options = check_optimizer("bpr_step_", optimizer, lr, beta1, beta2, eps, weight_decay);
  check_state("bpr_step_", "state", state, options.kind, values.numel(), rows);
  check_step("bpr_step_", step);
  TORCH_CHECK_VALUE(batch_size >= 1, "bpr_step_: batch_size is ", batch_size, ", expected at least 1");
  check_triples("bpr_step_", users, pos, neg, rows, item_offset);
  const int64_t count = users.numel();
  TORCH_CHECK_VALUE(bits_for(rows) + bits_for(3 * std::min(batch_size, count)) <= 64 && batch_size < 1ll << 30,
                    "bpr_step_: batch_size ", batch_size, " is too large for a table of ", rows, " rows");

  at::Tensor loss = at::empty({(count + batch_size - 1) / batch_size}, state.options());
  BprStepArgs args;
  args.table = table;
  args.value_type = value_type(values);
  args.values = values.mutable_data_ptr();
  args.state = state.mutable_data_ptr<float>();
  args.users = users.const_data_ptr<int64_t>();
  args.pos = pos.const_data_ptr<int64_t>();
  args.neg = neg.const_data_ptr<int64_t>();
  args.count = count;
  args.batch_size = batch_size;
  args.capacity = values.numel();
  args.item_offset = item_offset;
  args.l2 = static_cast<float>(l2);
  args.optimizer = options;
  args.step = *step.const_data_ptr<int64_t>();
  args.seed = static_cast<uint64_t>(seed);
  args.loss = loss.mutable_data_ptr<float>();
  args.workspace = nullptr;
  const int threads = std::min(batch_size, count) < 128 ? 1 : op_threads();
  at::Tensor workspace = at::empty({bpr_step_workspace_bytes(args, threads)}, values.options().dtype(at::kByte));
  args.workspace = workspace.mutable_data_ptr();
  bpr_step(args, threads);
  *step.mutable_data_ptr<int64_t>() += loss.numel();
  for (const at::Tensor* written : {&values, &state, &step}) mark_written(*written);
  return loss;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "bpr_step_(Tensor(a!) values, Tensor(b!) state, Tensor(c!) step, Tensor index, Tensor cols, Tensor users, Tensor "
      "pos, Tensor neg, int kind, int rows, int dim, int item_offset, int batch_size, int optimizer, float lr, float "
      "beta1, float beta2, float eps, float weight_decay, float l2, int seed) -> Tensor");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) { m.impl("bpr_step_", bpr_step_cpu); }

}  // namespace recsparse
