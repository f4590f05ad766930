#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "cuda/bpr_grow_scores.h"
#include "torch/cuda_call.h"
#include "torch/triples.h"

namespace recsparse {
namespace {

// Waits for the device once: the results are as long as there are candidates.
std::tuple<at::Tensor, at::Tensor> bpr_grow_scores_cuda(const at::Tensor& index, const at::Tensor& cols,
                                                        const at::Tensor& values, const at::Tensor& users,
                                                        const at::Tensor& pos, const at::Tensor& neg, int64_t kind,
                                                        int64_t rows, int64_t dim, int64_t item_offset, int64_t limit) {
  const char* op = "bpr_grow_scores";
  const CudaCall call(op, values);
  const TableView table = check_table(op, index, cols, values, kind, rows, dim, call.device());
  check_triple_shapes(op, users, pos, neg, rows, item_offset, call.device());
  TORCH_CHECK_VALUE(limit >= 0, "bpr_grow_scores: limit is ", limit, ", expected at least 0");
  const int64_t count = users.numel();
  TORCH_CHECK_VALUE(count < 1ll << 24, "bpr_grow_scores: ", count, " triples, expected fewer than 2^24");
  // No more candidates than full-width rows that the triples touch.
  const int64_t room = count == 0 ? 0 : std::min(limit, std::min(3 * count, rows) * dim);
  at::Tensor keys = at::empty({room}, users.options());
  at::Tensor scores = at::empty({room}, values.options().dtype(at::kFloat));
  if (room == 0) return {keys, scores};
  at::Tensor found = at::empty({1}, users.options());
  cuda::BprGrowScoresArgs args;
  args.table = table;
  args.value_type = value_type(values);
  args.values = values.const_data_ptr();
  args.triples = {users.const_data_ptr<int64_t>(),
                  pos.const_data_ptr<int64_t>(),
                  neg.const_data_ptr<int64_t>(),
                  count,
                  item_offset,
                  rows,
                  call.site(cuda::Fault::bpr_grow_scores_users, item_offset, count, 0),
                  call.site(cuda::Fault::bpr_grow_scores_pos, rows - item_offset, count, 0),
                  call.site(cuda::Fault::bpr_grow_scores_neg, rows - item_offset, count, 0)};
  args.limit = room;
  args.keys = keys.mutable_data_ptr<int64_t>();
  args.scores = scores.mutable_data_ptr<float>();
  args.found = found.mutable_data_ptr<int64_t>();
  args.workspace = nullptr;
  at::Tensor workspace = call.workspace(cuda::bpr_grow_scores_workspace_bytes(args));
  args.workspace = workspace.mutable_data_ptr();
  call.check(cuda::bpr_grow_scores(args, call.stream()));
  const int64_t written = *found.cpu().const_data_ptr<int64_t>();
  check_device_errors(call.device());  // it has waited already
  return {keys.resize_({written}), scores.resize_({written})};
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) { m.impl("bpr_grow_scores", bpr_grow_scores_cuda); }

}  // namespace recsparse
