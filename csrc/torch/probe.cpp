// Probe ops, CUDA only: they tell whether a launch reaches torch's current stream, and what the memory system gives.
#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def("probe_fill_(Tensor(a!) self, float value) -> ()");
  m.def("probe_copy_(Tensor(a!) out, Tensor src) -> ()");
  m.def("probe_gather(Tensor table, Tensor ids) -> Tensor");
}
