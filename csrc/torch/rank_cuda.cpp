#include <torch/library.h>

#include <tuple>

#include "cuda/rank.h"
#include "torch/cuda_call.h"
#include "torch/rank_args.h"

namespace recsparse {
namespace {

using Lists = std::tuple<at::Tensor, at::Tensor>;

cuda::RankRows dense_rows(const at::Tensor& rows) {
  cuda::RankRows out{};
  out.count = rows.size(0);
  out.dense = rows.const_data_ptr<float>();
  return out;
}

// A row that cannot be ranked, or a bad id, is raised when the device is waited for.
Lists ranked(const CudaCall& call, cuda::RankArgs args, const at::Tensor& indptr, const at::Tensor& seen, int64_t k) {
  const int64_t users = args.users.count;
  at::Tensor items = at::empty({users, k}, indptr.options().dtype(at::kInt));
  at::Tensor scores = at::empty({users, k}, indptr.options().dtype(at::kFloat));
  args.bad_seen = call.site(cuda::Fault::rank_indptr, seen.numel(), users, 0);
  args.items.bad_rows = call.site(cuda::Fault::rank_item_row, 0, args.items.count, 0);
  args.users.bad_rows = call.site(cuda::Fault::rank_user_row, 0, users, 0);
  args.seen_indptr = indptr.const_data_ptr<int64_t>();
  args.seen_items = seen.const_data_ptr<int32_t>();
  args.seen = seen.numel();
  args.k = k;
  args.out_items = items.mutable_data_ptr<int32_t>();
  args.out_scores = scores.mutable_data_ptr<float>();
  at::Tensor workspace = call.workspace(cuda::rank_workspace_bytes(args));
  args.workspace = workspace.mutable_data_ptr();
  call.check(cuda::rank(args, call.stream()));
  call.finish();
  return {items, scores};
}

Lists rank_cuda(const at::Tensor& users, const at::Tensor& items, const at::Tensor& indptr, const at::Tensor& seen,
                int64_t k, int64_t screen) {
  const CudaCall call("rank", users);
  check_rank_rows(users, items, call.device());
  check_rank_lists(indptr, seen, users.size(0), items.size(0), k, screen, call.device());
  cuda::RankArgs args{};
  args.users = dense_rows(users);
  args.items = dense_rows(items);
  args.dim = static_cast<int>(users.size(1));
  return ranked(call, args, indptr, seen, k);
}

Lists rank_packed_cuda(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                       const at::Tensor& users, const at::Tensor& indptr, const at::Tensor& seen, int64_t k,
                       int64_t item_offset, int64_t kind, int64_t rows, int64_t dim, int64_t screen) {
  const CudaCall call("rank", values);
  cuda::RankArgs args{};
  args.items.table = check_rank_table(index, cols, values, users, item_offset, kind, rows, dim, call.device());
  check_rank_lists(indptr, seen, users.numel(), rows - item_offset, k, screen, call.device());
  args.items.count = rows - item_offset;
  args.items.type = value_type(values);
  args.items.values = values.const_data_ptr();
  args.items.first = item_offset;
  args.users = args.items;
  args.users.count = users.numel();
  args.users.ids = users.const_data_ptr<int64_t>();
  args.dim = static_cast<int>(dim);
  args.bad_ids = call.site(cuda::Fault::rank_users, rows, users.numel(), 0);
  return ranked(call, args, indptr, seen, k);
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("rank", rank_cuda);
  m.impl("rank_packed", rank_packed_cuda);
}

}  // namespace recsparse
