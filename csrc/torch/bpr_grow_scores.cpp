#include "cpu/bpr_grow_scores.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "torch/triples.h"

namespace recsparse {
namespace {

std::tuple<at::Tensor, at::Tensor> bpr_grow_scores_cpu(const at::Tensor& index, const at::Tensor& cols,
                                                       const at::Tensor& values, const at::Tensor& users,
                                                       const at::Tensor& pos, const at::Tensor& neg, int64_t kind,
                                                       int64_t rows, int64_t dim, int64_t item_offset, int64_t limit) {
  const TableView table = check_table("bpr_grow_scores", index, cols, values, kind, rows, dim);
  check_triples("bpr_grow_scores", users, pos, neg, rows, item_offset);
  TORCH_CHECK_VALUE(limit >= 0, "bpr_grow_scores: limit is ", limit, ", expected at least 0");
  const int64_t count = users.numel();
  TORCH_CHECK_VALUE(count < 1ll << 24, "bpr_grow_scores: ", count, " triples, expected fewer than 2^24");
  // No more candidates than full-width rows that the triples touch.
  const int64_t room = std::min(limit, std::min(3 * count, rows) * dim);
  at::Tensor keys = at::empty({room}, users.options());
  at::Tensor scores = at::empty({room}, values.options().dtype(at::kFloat));
  at::Tensor sort = at::empty({6 * count}, users.options());
  at::Tensor coefficient = at::empty({count}, scores.options());
  const BprGrowScoresArgs args{table,
                               value_type(values),
                               values.const_data_ptr(),
                               users.const_data_ptr<int64_t>(),
                               pos.const_data_ptr<int64_t>(),
                               neg.const_data_ptr<int64_t>(),
                               count,
                               item_offset,
                               room,
                               keys.mutable_data_ptr<int64_t>(),
                               scores.mutable_data_ptr<float>(),
                               reinterpret_cast<uint64_t*>(sort.mutable_data_ptr<int64_t>()),
                               coefficient.mutable_data_ptr<float>()};
  const int64_t found = bpr_grow_scores(args, op_threads());
  return {keys.resize_({found}), scores.resize_({found})};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "bpr_grow_scores(Tensor index, Tensor cols, Tensor values, Tensor users, Tensor pos, Tensor neg, int kind, int "
      "rows, int dim, int item_offset, int limit) -> (Tensor keys, Tensor scores)");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) { m.impl("bpr_grow_scores", bpr_grow_scores_cpu); }

}  // namespace recsparse
