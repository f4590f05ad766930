#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>

#include "core/init.h"
#include "cuda/init.h"
#include "torch/cuda_call.h"
#include "torch/init_args.h"

namespace recsparse {
namespace {

// The largest threshold with at most `kept` ranks below it, by two 16-bit histograms. Waits for the device.
uint64_t rank_threshold(const CudaCall& call, const Layout& layout, int64_t kept, uint64_t seed) {
  uint64_t threshold = 0;
  int64_t below = 0;
  for (int level = 0; level < 2 && threshold < 1ull << 32; ++level) {
    const auto options = at::TensorOptions().dtype(at::kLong).device(call.device());
    at::Tensor counts = at::zeros({cuda::kRankBuckets}, options);
    const cuda::RankHistogramArgs args{layout, seed, level, static_cast<uint32_t>(threshold >> 16),
                                       reinterpret_cast<uint64_t*>(counts.mutable_data_ptr<int64_t>())};
    call.check(cuda::rank_histogram(args, call.stream()));
    const at::Tensor read = counts.cpu();
    const uint64_t unit = level == 0 ? 1ull << 16 : 1;
    for (int bucket = 0; bucket < cuda::kRankBuckets; ++bucket) {
      const int64_t count = read.const_data_ptr<int64_t>()[bucket];
      if (below + count > kept) break;
      below += count;
      threshold += unit;
    }
  }
  return threshold;
}

int64_t init_index_cuda(at::Tensor& index, at::Tensor& cols, int64_t kind, int64_t rows, int64_t dim, int64_t start,
                        int64_t kept, int64_t seed) {
  const CudaCall call("init_index_", index);
  const Layout layout = check_init_index(index, cols, kind, rows, dim, start, kept, call.device());
  at::Tensor result = at::empty({2}, index.options());
  at::Tensor workspace = call.workspace(cuda::init_index_workspace_bytes(layout));
  constexpr int64_t kBernoulli = 2;
  const uint64_t threshold = start == kBernoulli ? rank_threshold(call, layout, kept, static_cast<uint64_t>(seed)) : 0;
  const cuda::InitIndexArgs args{layout,
                                 static_cast<int32_t>(start),
                                 kept,
                                 static_cast<uint64_t>(seed),
                                 threshold,
                                 reinterpret_cast<uint64_t*>(index.mutable_data_ptr<int64_t>()),
                                 cols.mutable_data_ptr<uint8_t>(),
                                 reinterpret_cast<uint64_t*>(result.mutable_data_ptr<int64_t>()),
                                 workspace.mutable_data_ptr()};
  call.check(cuda::init_index(args, call.stream()));
  return result.cpu().const_data_ptr<int64_t>()[0];
}

void init_values_cuda(at::Tensor& values, const at::Tensor& index, const at::Tensor& cols, int64_t kind, int64_t rows,
                      int64_t dim, int64_t seed, double std) {
  const CudaCall call("init_values_", values);
  const TableView table = check_table("init_values_", index, cols, values, kind, rows, dim, call.device());
  TORCH_CHECK_VALUE(std::isfinite(std) && std >= 0, "init_values_: std is ", std, ", expected a finite number >= 0");
  const cuda::InitValuesArgs args{table, value_type(values), static_cast<uint64_t>(seed),
                                  static_cast<float>(std / kNormalUnit), values.mutable_data_ptr()};
  call.check(cuda::init_values(args, call.stream()));
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("init_index_", init_index_cuda);
  m.impl("init_values_", init_values_cuda);
}

}  // namespace recsparse
