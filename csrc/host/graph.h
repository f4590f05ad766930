// Builds the graph of core/graph.h from the CSR matrix of train interactions.
#pragma once

#include <cstdint>
#include <vector>

namespace recsparse::host {

// Index: int32_t for fewer than 2^31 nodes, else int64_t.
template <class Index>
struct Graph {
  std::vector<int64_t> offsets;
  std::vector<Index> neighbours, node, slot;
  std::vector<float> scale;
  std::vector<int64_t> chunks;
};

// Users are nodes [0, n_users), items follow. `items` is valid CSR, ascending and unique in each row. Memory besides the
// result: 40 bytes a node; together less than twice an edge list of 8 bytes an edge, and some bytes a node.
template <class Index>
Graph<Index> build_graph(const int64_t* indptr, const int32_t* items, int64_t n_users, int64_t n_items);

}  // namespace recsparse::host
