// Checks of the arguments of the LightGCN ops, shared by the backends.
#pragma once

#include <algorithm>

#include "cpu/row_sort.h"
#include "torch/graph_args.h"
#include "torch/triples.h"

namespace recsparse {

// The tensors that both ops get, in the order of their schemas.
struct LightgcnCall {
  const char* op;
  const at::Tensor &values, &index, &cols, &offsets, &neighbours, &node, &slot, &scale, &chunks, &users, &pos, &neg;
  int64_t kind, rows, dim, item_offset, batch_size, layers;

  GraphView<int32_t> graph() const { return graph_view<int32_t>(offsets, neighbours, node, slot, scale, chunks); }
};

// The ids of the triples are not looked at.
inline TableView check_lightgcn(const LightgcnCall& call, c10::Device device = at::kCPU) {
  const char* op = call.op;
  const TableView table = check_table(op, call.index, call.cols, call.values, call.kind, call.rows, call.dim, device);
  check_graph(op, call.offsets, call.neighbours, call.node, call.slot, call.scale, call.chunks, device);
  TORCH_CHECK_TYPE(call.neighbours.scalar_type() == at::kInt, op, ": neighbours has dtype ",
                   call.neighbours.scalar_type(), ", expected Int");
  TORCH_CHECK_VALUE(call.node.numel() == call.rows, op, ": the graph has ", call.node.numel(),
                    " nodes, expected one a row, ", call.rows);
  TORCH_CHECK_VALUE(call.layers >= 1 && call.layers <= 64, op, ": layers is ", call.layers, ", expected 1..64");
  TORCH_CHECK_VALUE(call.batch_size >= 1, op, ": batch_size is ", call.batch_size, ", expected at least 1");
  check_triple_shapes(op, call.users, call.pos, call.neg, call.rows, call.item_offset, device);
  const int64_t batch = std::min(call.batch_size, call.users.numel());
  TORCH_CHECK_VALUE(bits_for(call.rows) + bits_for(3 * batch) <= 64 && batch < 1ll << 29, op, ": batch_size ",
                    call.batch_size, " is too large for a table of ", call.rows, " rows");
  return table;
}

}  // namespace recsparse
