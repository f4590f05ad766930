// The tensors of a graph (recsparse.graph.Graph), checked, as kernels get them.
#pragma once

#include "core/graph.h"
#include "torch/check.h"

namespace recsparse {

// Sizes and types only; `recsparse.graph` builds the contents and nobody else does.
template <class Index>
GraphView<Index> graph_view(const at::Tensor& offsets, const at::Tensor& neighbours, const at::Tensor& node,
                            const at::Tensor& slot, const at::Tensor& scale, const at::Tensor& chunks) {
  return GraphView<Index>{node.numel(),
                          offsets.const_data_ptr<int64_t>(),
                          neighbours.const_data_ptr<Index>(),
                          node.const_data_ptr<Index>(),
                          slot.const_data_ptr<Index>(),
                          scale.const_data_ptr<float>(),
                          chunks.const_data_ptr<int64_t>(),
                          chunks.numel() - 1};
}

inline void check_graph(const char* op, const at::Tensor& offsets, const at::Tensor& neighbours, const at::Tensor& node,
                        const at::Tensor& slot, const at::Tensor& scale, const at::Tensor& chunks,
                        c10::Device device = at::kCPU) {
  const at::ScalarType index = neighbours.scalar_type();
  TORCH_CHECK_TYPE(index == at::kInt || index == at::kLong, op, ": neighbours has dtype ", index,
                   ", expected Int or Long");
  check_vector(offsets, op, "offsets", at::kLong, device);
  check_vector(neighbours, op, "neighbours", index, device);
  check_vector(node, op, "node", index, device);
  check_vector(slot, op, "slot", index, device);
  check_vector(scale, op, "scale", at::kFloat, device);
  check_vector(chunks, op, "chunks", at::kLong, device);
  const int64_t nodes = node.numel();
  TORCH_CHECK_VALUE(
      offsets.numel() == nodes + 1 && slot.numel() == nodes && scale.numel() == nodes && chunks.numel() >= 1, op,
      ": offsets, node, slot, scale and chunks have ", offsets.numel(), ", ", nodes, ", ", slot.numel(), ", ",
      scale.numel(), " and ", chunks.numel(), " entries, expected n + 1, n, n, n and at least 1");
  if (!device.is_cpu()) return;  // what they hold is known to the device alone
  const int64_t* at = offsets.const_data_ptr<int64_t>();
  const int64_t* cuts = chunks.const_data_ptr<int64_t>();
  TORCH_CHECK_VALUE(at[0] == 0 && at[nodes] == neighbours.numel(), op, ": offsets go from ", at[0], " to ", at[nodes],
                    ", expected 0 to the ", neighbours.numel(), " neighbours");
  TORCH_CHECK_VALUE(cuts[chunks.numel() - 1] == nodes, op, ": chunks end at ", cuts[chunks.numel() - 1],
                    ", expected the number of nodes, ", nodes);
}

// The rows that spmm propagates.
inline void check_spmm_rows(const at::Tensor& x, int64_t nodes, c10::Device device = at::kCPU) {
  const at::ScalarType dtype = x.scalar_type();
  TORCH_CHECK_TYPE(is_value_type(dtype), "spmm: x has dtype ", dtype, ", expected Float, Half or BFloat16");
  check_tensor(x, "spmm", "x", dtype, device);
  TORCH_CHECK_VALUE(x.dim() == 2 && x.size(0) == nodes && x.size(1) >= 1, "spmm: x has shape ", x.sizes(),
                    ", expected [", nodes, " nodes, d]");
}

}  // namespace recsparse
