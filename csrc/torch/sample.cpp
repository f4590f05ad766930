// Schema and CPU binding of `sample` and `sample_synthetic`.
#include "cpu/sample.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <limits>
#include <tuple>

#include "torch/check.h"

namespace recsparse {
namespace {

using Triples = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

void check_range(int64_t start, int64_t count) {
  TORCH_CHECK_VALUE(start >= 0 && count >= 0 && count <= std::numeric_limits<int64_t>::max() - start,
                    "start and count must not be negative, got ", start, " and ", count);
}

std::pair<Triples, cpu::SampleOut> make_outputs(int64_t count) {
  const auto options = at::TensorOptions().dtype(at::kLong);
  Triples out{at::empty({count}, options), at::empty({count}, options), at::empty({count}, options)};
  const auto& [users, pos, neg] = out;
  const cpu::SampleOut pointers{users.mutable_data_ptr<int64_t>(), pos.mutable_data_ptr<int64_t>(),
                                neg.mutable_data_ptr<int64_t>()};
  return {out, pointers};
}

Triples sample(const at::Tensor& indptr, const at::Tensor& items, const at::Tensor& users, int64_t n_items,
               int64_t seed, int64_t start, int64_t count, int64_t mode) {
  check_vector(indptr, "sample", "indptr", at::kLong);
  check_vector(items, "sample", "items", at::kInt);
  check_vector(users, "sample", "users", at::kLong);
  check_range(start, count);
  const int64_t rows = users.numel(), nnz = items.numel();
  TORCH_CHECK_VALUE(indptr.numel() == rows + 1, "indptr: ", rows + 1, " entries are expected (users + 1), got ",
                    indptr.numel());
  TORCH_CHECK_VALUE(n_items >= 1 && n_items <= std::numeric_limits<int32_t>::max(),
                    "n_items: expected 1 .. 2^31 - 1, got ", n_items);
  TORCH_CHECK_VALUE(mode == 0 || mode == 1, "mode: expected 0 (users) or 1 (interactions), got ", mode);
  TORCH_CHECK_VALUE(count == 0 || (rows > 0 && nnz > 0),
                    "nothing to draw from: no user has both a positive and a negative");
  const int64_t* starts = indptr.const_data_ptr<int64_t>();
  TORCH_CHECK_VALUE(starts[0] == 0 && starts[rows] == nnz, "indptr: must start at 0 and end at ", nnz,
                    ", the number of items");

  auto [out, pointers] = make_outputs(count);
  const cpu::SampleArgs args{starts,
                             items.const_data_ptr<int32_t>(),
                             users.const_data_ptr<int64_t>(),
                             rows,
                             nnz,
                             n_items,
                             static_cast<uint64_t>(seed),
                             start,
                             count,
                             static_cast<SampleMode>(mode),
                             op_threads()};
  const int64_t bad = cpu::sample(args, pointers);
  TORCH_CHECK_VALUE(bad < 0, "row ", bad, ": expected 1 .. n_items - 1 positives inside items");
  return out;
}

Triples sample_synthetic(int64_t n_users, int64_t n_items, int64_t min_degree, int64_t max_degree, int64_t seed,
                         int64_t start, int64_t count) {
  check_range(start, count);
  TORCH_CHECK_VALUE(n_users >= 1, "n_users: expected at least 1, got ", n_users);
  TORCH_CHECK_VALUE(n_items >= 2 && n_items <= std::numeric_limits<int32_t>::max(),
                    "n_items: expected 2 .. 2^31 - 1, got ", n_items);
  const int64_t limit = std::min<int64_t>(kMaxSyntheticDegree, n_items - 1);
  TORCH_CHECK_VALUE(1 <= min_degree && min_degree <= max_degree && max_degree <= limit,
                    "degrees: expected 1 <= min <= max <= ", limit, ", got ", min_degree, " and ", max_degree);
  auto [out, pointers] = make_outputs(count);
  const SyntheticSpec spec = make_synthetic(n_users, n_items, static_cast<int32_t>(min_degree),
                                            static_cast<int32_t>(max_degree), static_cast<uint64_t>(seed));
  cpu::sample_synthetic(spec, start, count, op_threads(), pointers);
  return out;
}

}  // namespace
}  // namespace recsparse

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "sample(Tensor indptr, Tensor items, Tensor users, int n_items, int seed, int start, int count, int mode) "
      "-> (Tensor users, Tensor pos, Tensor neg)");
  m.def(
      "sample_synthetic(int n_users, int n_items, int min_degree, int max_degree, int seed, int start, int count) "
      "-> (Tensor users, Tensor pos, Tensor neg)");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) { m.impl("sample", &recsparse::sample); }

// No tensor argument tells a backend: the stream is drawn on the host.
TORCH_LIBRARY_IMPL(recsparse, CompositeExplicitAutograd, m) {
  m.impl("sample_synthetic", &recsparse::sample_synthetic);
}
