// The library's namespace and what is not an op on a table. Each op registers its own schema in its own file.
#include <sys/mman.h>
#include <torch/library.h>

#include "cpu/dispatch.h"
#include "torch/check.h"

namespace recsparse {

void advise_huge_pages(const at::Tensor& tensor) {
  constexpr uintptr_t kHuge = 2u << 20;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t first = (begin + kHuge - 1) / kHuge * kHuge, last = (begin + tensor.nbytes()) / kHuge * kHuge;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

namespace {

std::string cpu_isa_op() { return cpu_isa_name(); }

// On the CPU an op raises at once.
void raise_device_errors(const at::Tensor&) {}

int64_t index_words_op(int64_t kind, int64_t rows, int64_t dim) {
  return index_words(check_layout("index_words", kind, rows, dim));
}

}  // namespace

TORCH_LIBRARY(recsparse, m) {
  m.def("cpu_isa() -> str", cpu_isa_op);
  m.def("index_words(int kind, int rows, int dim) -> int", index_words_op);
  m.def("advise_huge_pages(Tensor tensor) -> ()");
  m.def("raise_device_errors(Tensor like) -> ()");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("advise_huge_pages", advise_huge_pages);
  m.impl("raise_device_errors", raise_device_errors);
}

}  // namespace recsparse
