// An order of the graph's rows in which rows that share neighbours follow each other.
#pragma once

#include <cstdint>
#include <vector>

namespace recsparse::host {

// The users in such an order, then the items: a permutation of [0, n_users + n_items). `scale`: of nodes, 1 / sqrt(degree) or 0.
// Memory besides the result: 40 bytes a node.
template <class Index>
std::vector<Index> locality_order(const int64_t* indptr, const int32_t* items, int64_t n_users, int64_t n_items,
                                  const std::vector<float>& scale);

}  // namespace recsparse::host
