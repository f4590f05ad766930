#include <torch/library.h>

#include "cuda/spmm.h"
#include "torch/cuda_call.h"
#include "torch/graph_args.h"

namespace recsparse {
namespace {

at::Tensor spmm_cuda(const at::Tensor& offsets, const at::Tensor& neighbours, const at::Tensor& node,
                     const at::Tensor& slot, const at::Tensor& scale, const at::Tensor& chunks, const at::Tensor& x) {
  const CudaCall call("spmm", x);
  check_graph("spmm", offsets, neighbours, node, slot, scale, chunks, call.device());
  check_spmm_rows(x, node.numel(), call.device());
  at::Tensor out = at::empty(x.sizes(), x.options());
  const auto run = [&](auto index) {
    using Index = decltype(index);
    cuda::SpmmArgs<Index> args{graph_view<Index>(offsets, neighbours, node, slot, scale, chunks),
                               neighbours.numel(),
                               value_type(x),
                               x.const_data_ptr(),
                               x.size(1),
                               out.mutable_data_ptr(),
                               nullptr};
    at::Tensor workspace = call.workspace(cuda::spmm_workspace_bytes(args));
    args.workspace = workspace.mutable_data_ptr();
    call.check(cuda::spmm(args, call.stream()));
  };
  neighbours.scalar_type() == at::kInt ? run(int32_t{}) : run(int64_t{});
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) { m.impl("spmm", spmm_cuda); }

}  // namespace recsparse
