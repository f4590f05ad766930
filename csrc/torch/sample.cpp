// Schema and CPU binding of `sample` and `sample_synthetic`.
#include "cpu/sample.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

#include "torch/sample_args.h"

namespace recsparse {
namespace {

using Triples = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

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
  check_sample(indptr, items, users, n_items, start, count, mode);
  const int64_t rows = users.numel(), nnz = items.numel();
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
  const SyntheticSpec spec = check_synthetic(n_users, n_items, min_degree, max_degree, seed, start, count);
  auto [out, pointers] = make_outputs(count);
  cpu::sample_synthetic(spec, start, count, op_threads(), pointers);
  return out;
}

void sample_synthetic_out(int64_t n_users, int64_t n_items, int64_t min_degree, int64_t max_degree, int64_t seed,
                          int64_t start, int64_t count, at::Tensor& users, at::Tensor& pos, at::Tensor& neg) {
  const SyntheticSpec spec = check_synthetic(n_users, n_items, min_degree, max_degree, seed, start, count);
  check_draw_outputs(users, pos, neg, count, at::kCPU);
  const cpu::SampleOut pointers{users.mutable_data_ptr<int64_t>(), pos.mutable_data_ptr<int64_t>(),
                                neg.mutable_data_ptr<int64_t>()};
  cpu::sample_synthetic(spec, start, count, op_threads(), pointers);
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
  m.def(
      "sample_synthetic.out(int n_users, int n_items, int min_degree, int max_degree, int seed, int start, int count, "
      "*, Tensor(a!) users, Tensor(b!) pos, Tensor(c!) neg) -> ()");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("sample", &recsparse::sample);
  m.impl("sample_synthetic.out", &recsparse::sample_synthetic_out);
}

// No tensor argument tells a backend: the stream is drawn on the host.
TORCH_LIBRARY_IMPL(recsparse, CompositeExplicitAutograd, m) {
  m.impl("sample_synthetic", &recsparse::sample_synthetic);
}
