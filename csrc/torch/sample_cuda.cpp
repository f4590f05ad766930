#include <torch/library.h>

#include <tuple>

#include "cuda/sample.h"
#include "torch/cuda_call.h"
#include "torch/sample_args.h"

namespace recsparse {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor> sample_cuda(const at::Tensor& indptr, const at::Tensor& items,
                                                           const at::Tensor& users, int64_t n_items, int64_t seed,
                                                           int64_t start, int64_t count, int64_t mode) {
  const CudaCall call("sample", indptr);
  check_sample(indptr, items, users, n_items, start, count, mode, call.device());
  at::Tensor out_users = at::empty({count}, indptr.options());
  at::Tensor pos = at::empty({count}, indptr.options());
  at::Tensor neg = at::empty({count}, indptr.options());
  const cuda::SampleArgs args{indptr.const_data_ptr<int64_t>(),
                              items.const_data_ptr<int32_t>(),
                              users.const_data_ptr<int64_t>(),
                              users.numel(),
                              items.numel(),
                              n_items,
                              static_cast<uint64_t>(seed),
                              start,
                              count,
                              static_cast<SampleMode>(mode),
                              out_users.mutable_data_ptr<int64_t>(),
                              pos.mutable_data_ptr<int64_t>(),
                              neg.mutable_data_ptr<int64_t>(),
                              call.site(cuda::Fault::sample_row, users.numel(), count, 0)};
  call.check(cuda::sample(args, call.stream()));
  call.finish();
  return {out_users, pos, neg};
}

void sample_synthetic_out_cuda(int64_t n_users, int64_t n_items, int64_t min_degree, int64_t max_degree, int64_t seed,
                               int64_t start, int64_t count, at::Tensor& users, at::Tensor& pos, at::Tensor& neg) {
  const CudaCall call("sample_synthetic", users);
  const SyntheticSpec spec = check_synthetic(n_users, n_items, min_degree, max_degree, seed, start, count);
  check_draw_outputs(users, pos, neg, count, call.device());
  const cuda::SampleSyntheticArgs args{spec,
                                       start,
                                       count,
                                       users.mutable_data_ptr<int64_t>(),
                                       pos.mutable_data_ptr<int64_t>(),
                                       neg.mutable_data_ptr<int64_t>()};
  call.check(cuda::sample_synthetic(args, call.stream()));
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("sample", sample_cuda);
  m.impl("sample_synthetic.out", sample_synthetic_out_cuda);
}

}  // namespace recsparse
