#include <torch/library.h>

#include "cuda/probe.h"
#include "torch/cuda_call.h"

namespace recsparse {
namespace {

bool aligned16(const at::Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0; }

void probe_fill_cuda(const at::Tensor& self, double value) {
  const CudaCall call("probe_fill_", self);
  check_tensor(self, "probe_fill_", "self", at::kFloat, call.device());
  call.check(cuda::probe_fill(self.mutable_data_ptr<float>(), self.numel(), static_cast<float>(value), call.stream()));
}

void probe_copy_cuda(const at::Tensor& out, const at::Tensor& src) {
  const CudaCall call("probe_copy_", out);
  check_tensor(out, "probe_copy_", "out", out.scalar_type(), call.device());
  check_tensor(src, "probe_copy_", "src", src.scalar_type(), call.device());
  const int64_t bytes = static_cast<int64_t>(src.nbytes());
  TORCH_CHECK_VALUE(static_cast<int64_t>(out.nbytes()) == bytes && bytes % 16 == 0,
                    "out and src: equal sizes, a multiple of 16 bytes, are expected");
  TORCH_CHECK_VALUE(aligned16(out) && aligned16(src), "out and src: 16-byte alignment is expected");
  call.check(cuda::probe_copy(out.mutable_data_ptr(), src.const_data_ptr(), bytes, call.stream()));
}

at::Tensor probe_gather_cuda(const at::Tensor& table, const at::Tensor& ids) {
  const CudaCall call("probe_gather", table);
  check_tensor(table, "probe_gather", "table", table.scalar_type(), call.device());
  check_vector(ids, "probe_gather", "ids", at::kLong, call.device());
  TORCH_CHECK_VALUE(table.dim() == 2 && aligned16(table), "table: two dimensions and 16-byte alignment are expected");
  at::Tensor out = at::empty({ids.size(0), table.size(1)}, table.options());
  const cuda::ProbeGather args{static_cast<const uint8_t*>(table.const_data_ptr()), ids.const_data_ptr<int64_t>(),
                               static_cast<uint8_t*>(out.mutable_data_ptr()), ids.size(0),
                               table.size(1) * static_cast<int64_t>(table.element_size())};
  call.check(cuda::probe_gather(args, call.stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("probe_fill_", probe_fill_cuda);
  m.impl("probe_copy_", probe_copy_cuda);
  m.impl("probe_gather", probe_gather_cuda);
}

}  // namespace recsparse
