// Probe ops, CUDA only: they tell whether a launch reaches torch's current stream, and what the memory system gives.
#include <torch/library.h>

#ifdef RECSPARSE_WITH_CUDA
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "cuda/probe.h"
#include "torch/stream.h"

namespace recsparse {
namespace {

void check_launch(const char* error) { TORCH_CHECK(error == nullptr, "CUDA launch failed: ", error); }

void check_cuda(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK_VALUE(tensor.is_cuda() && tensor.is_contiguous(), name, ": a contiguous CUDA tensor is expected");
}

bool aligned16(const at::Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0; }

void probe_fill_(const at::Tensor& self, double value) {
  check_cuda(self, "self");
  TORCH_CHECK_VALUE(self.scalar_type() == at::kFloat, "self: float32 is expected, got ", self.scalar_type());
  const c10::DeviceGuard guard(self.device());
  check_launch(cuda::probe_fill(self.mutable_data_ptr<float>(), self.numel(), static_cast<float>(value),
                                current_stream(self.device())));
}

void probe_copy_(const at::Tensor& out, const at::Tensor& src) {
  check_cuda(out, "out");
  check_cuda(src, "src");
  TORCH_CHECK_VALUE(out.device() == src.device(), "out and src: the same device is expected");
  const int64_t bytes = static_cast<int64_t>(src.nbytes());
  TORCH_CHECK_VALUE(static_cast<int64_t>(out.nbytes()) == bytes && bytes % 16 == 0,
                    "out and src: equal sizes, a multiple of 16 bytes, are expected");
  TORCH_CHECK_VALUE(aligned16(out) && aligned16(src), "out and src: 16-byte alignment is expected");
  const c10::DeviceGuard guard(out.device());
  check_launch(cuda::probe_copy(out.mutable_data_ptr(), src.const_data_ptr(), bytes, current_stream(out.device())));
}

at::Tensor probe_gather(const at::Tensor& table, const at::Tensor& ids) {
  check_cuda(table, "table");
  check_cuda(ids, "ids");
  TORCH_CHECK_VALUE(table.device() == ids.device(), "table and ids: the same device is expected");
  TORCH_CHECK_VALUE(table.dim() == 2 && aligned16(table), "table: two dimensions and 16-byte alignment are expected");
  TORCH_CHECK_VALUE(ids.dim() == 1 && ids.scalar_type() == at::kLong, "ids: int64 of one dimension is expected");
  const int64_t row_bytes = table.size(1) * static_cast<int64_t>(table.element_size());
  const c10::DeviceGuard guard(table.device());
  at::Tensor out = at::empty({ids.size(0), table.size(1)}, table.options());
  const cuda::ProbeGather args{static_cast<const uint8_t*>(table.const_data_ptr()), ids.const_data_ptr<int64_t>(),
                               static_cast<uint8_t*>(out.mutable_data_ptr()), ids.size(0), row_bytes};
  check_launch(cuda::probe_gather(args, current_stream(table.device())));
  return out;
}

}  // namespace
}  // namespace recsparse

TORCH_LIBRARY_IMPL(recsparse, CUDA, m) {
  m.impl("probe_fill_", &recsparse::probe_fill_);
  m.impl("probe_copy_", &recsparse::probe_copy_);
  m.impl("probe_gather", &recsparse::probe_gather);
}
#endif

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def("probe_fill_(Tensor(a!) self, float value) -> ()");
  m.def("probe_copy_(Tensor(a!) out, Tensor src) -> ()");
  m.def("probe_gather(Tensor table, Tensor ids) -> Tensor");
}
