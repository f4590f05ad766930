#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>

#include "cuda/pack.h"
#include "torch/cuda_call.h"

namespace recsparse {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor> pack_cuda(const at::Tensor& dense, const at::Tensor& mask, int64_t kind,
                                                         int64_t capacity) {
  const CudaCall call("pack", dense);
  check_tensor(dense, "pack", "dense", check_floating("pack", "dense", dense), call.device());
  check_tensor(mask, "pack", "mask", at::kBool, call.device());
  TORCH_CHECK_VALUE(dense.dim() == 2, "pack: dense has shape ", dense.sizes(), ", expected [rows, dim]");
  TORCH_CHECK_VALUE(mask.sizes() == dense.sizes(), "pack: mask has shape ", mask.sizes(), ", expected ", dense.sizes());
  TORCH_CHECK_VALUE(capacity >= 0, "pack: capacity is ", capacity, ", expected at least 0");
  const Layout layout = check_layout("pack", kind, dense.size(0), dense.size(1));
  at::Tensor index = at::empty({index_words(layout)}, dense.options().dtype(at::kLong));
  at::Tensor cols = at::zeros({layout.kind == IndexKind::cols8 ? capacity : 0}, dense.options().dtype(at::kByte));
  at::Tensor values = at::zeros({capacity}, dense.options());
  at::Tensor result = at::empty({2}, index.options());
  at::Tensor workspace = call.workspace(cuda::pack_workspace_bytes(layout));
  const cuda::PackArgs args{layout,
                            static_cast<int>(dense.element_size()),
                            dense.const_data_ptr(),
                            reinterpret_cast<const uint8_t*>(mask.const_data_ptr<bool>()),
                            reinterpret_cast<uint64_t*>(index.mutable_data_ptr<int64_t>()),
                            cols.mutable_data_ptr<uint8_t>(),
                            values.mutable_data_ptr(),
                            reinterpret_cast<uint64_t*>(result.mutable_data_ptr<int64_t>()),
                            workspace.mutable_data_ptr()};
  call.check(cuda::pack_count(args, call.stream()));
  const at::Tensor found = result.cpu();
  const int64_t kept = found.const_data_ptr<int64_t>()[0], misfit = found.const_data_ptr<int64_t>()[1];
  TORCH_CHECK_VALUE(misfit < 0, "pack: row ", misfit, " does not keep ",
                    layout.kind == IndexKind::full ? "every column" : "a prefix of its columns",
                    "; use kind bits or cols8");
  TORCH_CHECK_VALUE(kept <= capacity, "pack: mask keeps ", kept, " weights, more than capacity ", capacity);
  call.check(cuda::pack_write(args, call.stream()));
  return {index, cols, values};
}

std::tuple<at::Tensor, at::Tensor> unpack_cuda(const at::Tensor& index, const at::Tensor& cols,
                                               const at::Tensor& values, int64_t kind, int64_t rows, int64_t dim) {
  const CudaCall call("unpack", values);
  check_vector(values, "unpack", "values", check_floating("unpack", "values", values), call.device());
  const TableView table = check_index("unpack", index, cols, values.numel(), kind, rows, dim, call.device());
  at::Tensor dense = at::empty({rows, dim}, values.options());
  at::Tensor mask = at::empty({rows, dim}, values.options().dtype(at::kBool));
  const cuda::UnpackArgs args{table, static_cast<int>(values.element_size()), values.const_data_ptr(),
                              dense.mutable_data_ptr(), reinterpret_cast<uint8_t*>(mask.mutable_data_ptr<bool>())};
  call.check(cuda::unpack(args, call.stream()));
  return {dense, mask};
}

}  // namespace

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) {
  m.impl("pack", pack_cuda);
  m.impl("unpack", unpack_cuda);
}

}  // namespace recsparse
