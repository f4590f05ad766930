#include "host/graph.h"

#include <algorithm>
#include <cmath>

#include "core/graph.h"
#include "host/locality.h"

namespace recsparse::host {
namespace {

constexpr int64_t kChunkEdges = 8192;  // work of a chunk: small enough to share out, large enough to be worth a counter
constexpr int64_t kRowEdges = 4;       // what a row costs besides its neighbours, in edges

}  // namespace

template <class Index>
Graph<Index> build_graph(const int64_t* indptr, const int32_t* items, int64_t n_users, int64_t n_items) {
  const int64_t nodes = n_users + n_items, edges = indptr[n_users];
  Graph<Index> graph;
  // Degrees first, in the place of `slot`.
  std::vector<Index>& degree = graph.slot;
  degree.assign(nodes, 0);
  for (int64_t u = 0; u < n_users; ++u) degree[u] = static_cast<Index>(indptr[u + 1] - indptr[u]);
  for (int64_t e = 0; e < edges; ++e) ++degree[n_users + items[e]];
  graph.scale.resize(nodes);
  for (int64_t i = 0; i < nodes; ++i) {
    graph.scale[i] = degree[i] ? static_cast<float>(1 / std::sqrt(static_cast<double>(degree[i]))) : 0.0f;
  }

  // The rows that are cut come first, then users, then items.
  graph.node = locality_order<Index>(indptr, items, n_users, n_items, graph.scale);
  const auto first_short = std::stable_partition(
      graph.node.begin(), graph.node.end(), [&](Index i) { return static_cast<int64_t>(degree[i]) > kSegmentEdges; });
  graph.chunks.push_back(first_short - graph.node.begin());
  graph.offsets.resize(nodes + 1);
  int64_t work = 0;
  for (int64_t s = 0; s < nodes; ++s) {
    const int64_t count = static_cast<int64_t>(degree[graph.node[s]]);
    graph.offsets[s + 1] = graph.offsets[s] + count;
    if (s < graph.chunks[0]) continue;
    work += count + kRowEdges;
    if (work >= kChunkEdges || s + 1 == nodes) {
      graph.chunks.push_back(s + 1);
      work = 0;
    }
  }
  for (int64_t s = 0; s < nodes; ++s) graph.slot[graph.node[s]] = static_cast<Index>(s);

  // Users in ascending order, so that the neighbours of an item ascend too.
  std::vector<int64_t> next(n_items);  // where the next user of an item goes
  for (int64_t i = 0; i < n_items; ++i) next[i] = graph.offsets[graph.slot[n_users + i]];
  graph.neighbours.resize(2 * edges);
  for (int64_t u = 0; u < n_users; ++u) {
    int64_t out = graph.offsets[graph.slot[u]];
    for (int64_t e = indptr[u]; e < indptr[u + 1]; ++e) {
      graph.neighbours[out++] = static_cast<Index>(n_users + items[e]);
      graph.neighbours[next[items[e]]++] = static_cast<Index>(u);
    }
  }
  return graph;
}

template Graph<int32_t> build_graph<int32_t>(const int64_t*, const int32_t*, int64_t, int64_t);
template Graph<int64_t> build_graph<int64_t>(const int64_t*, const int32_t*, int64_t, int64_t);

}  // namespace recsparse::host
