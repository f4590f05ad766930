// Schema and CPU binding of `rank` and `rank_packed`.
#include "cpu/rank.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

#include "cpu/bpr_step.h"
#include "torch/rank_args.h"

namespace recsparse {
namespace {

using Lists = std::tuple<at::Tensor, at::Tensor>;

RankRows dense_rows(const at::Tensor& rows) {
  RankRows out{};
  out.count = rows.size(0);
  out.dense = rows.const_data_ptr<float>();
  return out;
}

Lists ranked(RankArgs args, const at::Tensor& indptr, const at::Tensor& seen, int64_t k, int64_t screen) {
  const int64_t users = args.users.count;
  check_rank_lists(indptr, seen, users, args.items.count, k, screen);
  const int64_t* starts = indptr.const_data_ptr<int64_t>();
  bool ascends = starts[0] >= 0 && starts[users] <= seen.numel();
  for (int64_t u = 0; u < users; ++u) ascends = ascends && starts[u] <= starts[u + 1];
  TORCH_CHECK_VALUE(ascends, "rank: indptr must ascend within 0..", seen.numel(), ", the length of seen");

  const auto options = indptr.options();
  at::Tensor items = at::empty({users, k}, options.dtype(at::kInt));
  at::Tensor scores = at::empty({users, k}, options.dtype(at::kFloat));
  args.seen_indptr = starts;
  args.seen_items = seen.const_data_ptr<int32_t>();
  args.k = k;
  args.screen = static_cast<RankScreen>(screen);
  args.out_items = items.mutable_data_ptr<int32_t>();
  args.out_scores = scores.mutable_data_ptr<float>();
  const RankFault fault = rank(args, op_threads());
  const bool of_item = fault.item >= 0;
  const int64_t* ids = args.users.ids;
  TORCH_CHECK_VALUE(!of_item && fault.user < 0, "rank: ", of_item ? "item" : "user", " row ",
                    of_item                  ? fault.item
                    : ids && fault.user >= 0 ? ids[fault.user]
                                             : fault.user,
                    " holds NaN, infinity or numbers too large to multiply; expected norms up to 1e18");
  return {items, scores};
}

Lists rank_cpu(const at::Tensor& users, const at::Tensor& items, const at::Tensor& indptr, const at::Tensor& seen,
               int64_t k, int64_t screen) {
  check_rank_rows(users, items);
  RankArgs args{};
  args.users = dense_rows(users);
  args.items = dense_rows(items);
  args.dim = static_cast<int>(users.size(1));
  return ranked(args, indptr, seen, k, screen);
}

Lists rank_packed_cpu(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                      const at::Tensor& users, const at::Tensor& indptr, const at::Tensor& seen, int64_t k,
                      int64_t item_offset, int64_t kind, int64_t rows, int64_t dim, int64_t screen) {
  const TableView table = check_rank_table(index, cols, values, users, item_offset, kind, rows, dim);
  const int64_t* ids = users.const_data_ptr<int64_t>();
  const int64_t bad = find_bad_id(ids, users.numel(), rows, op_threads());
  TORCH_CHECK_INDEX(bad < 0, "rank: users[", bad, "] = ", bad < 0 ? 0 : ids[bad], " is out of range, expected 0..",
                    rows - 1);
  RankArgs args{};
  args.items = RankRows{rows - item_offset, nullptr,        table,   values.const_data_ptr(),
                        value_type(values), values.numel(), nullptr, item_offset};
  args.users = args.items;
  args.users.count = users.numel();
  args.users.ids = ids;
  args.dim = static_cast<int>(dim);
  return ranked(args, indptr, seen, k, screen);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "rank(Tensor users, Tensor items, Tensor indptr, Tensor seen, int k, int screen=0) -> (Tensor items, Tensor "
      "scores)");
  m.def(
      "rank_packed(Tensor index, Tensor cols, Tensor values, Tensor users, Tensor indptr, Tensor seen, int k, int "
      "item_offset, int kind, int rows, int dim, int screen=0) -> (Tensor items, Tensor scores)");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("rank", rank_cpu);
  m.impl("rank_packed", rank_packed_cpu);
}

}  // namespace recsparse
