// spmm on the GPU: out = D^-1/2 A D^-1/2 x over the graph of core/graph.h. Pointers are to device memory, `stream` is a
// cudaStream_t on the current device. Sums are float, and the same in every run.
#pragma once

#include <cstdint>

#include "core/graph.h"
#include "core/half.h"

namespace recsparse::cuda {

template <class Index>
struct SpmmArgs {
  GraphView<Index> graph;
  int64_t edges;  // both directions
  ValueType type;
  const void* x;  // [nodes, dim] of the type
  int64_t dim;
  void* out;  // [nodes, dim], not x
  void* workspace;
};

template <class Index>
int64_t spmm_workspace_bytes(const SpmmArgs<Index>& args);
template <class Index>
const char* spmm(const SpmmArgs<Index>& args, void* stream);

}  // namespace recsparse::cuda
