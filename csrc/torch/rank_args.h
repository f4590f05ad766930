// Checks of the arguments of `rank` and `rank_packed`, shared by the backends.
#pragma once

#include <limits>

#include "torch/check.h"

namespace recsparse {

constexpr int64_t kMaxRankDim = 4096;  // sums of int8 products stay below 2^29

// The rows of both sides, dense.
inline void check_rank_rows(const at::Tensor& users, const at::Tensor& items, c10::Device device = at::kCPU) {
  const auto check = [&](const char* name, const at::Tensor& rows) {
    check_tensor(rows, "rank", name, at::kFloat, device);
    TORCH_CHECK_VALUE(rows.dim() == 2 && rows.size(1) >= 1 && rows.size(1) <= kMaxRankDim, "rank: ", name,
                      " has shape ", rows.sizes(), ", expected [n, d] with d in 1..", kMaxRankDim);
  };
  check("users", users);
  check("items", items);
  TORCH_CHECK_VALUE(users.size(1) == items.size(1), "rank: user rows have ", users.size(1),
                    " columns but item rows have ", items.size(1));
}

// Rows of a packed table; the ids themselves are not looked at.
inline TableView check_rank_table(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                                  const at::Tensor& users, int64_t item_offset, int64_t kind, int64_t rows, int64_t dim,
                                  c10::Device device = at::kCPU) {
  const TableView table = check_table("rank", index, cols, values, kind, rows, dim, device);
  check_vector(users, "rank", "users", at::kLong, device);
  TORCH_CHECK_VALUE(item_offset >= 0 && item_offset <= rows, "rank: item_offset is ", item_offset, ", expected 0..",
                    rows);
  return table;
}

// What is left out, and the lists; what indptr holds is not looked at.
inline void check_rank_lists(const at::Tensor& indptr, const at::Tensor& seen, int64_t users, int64_t items, int64_t k,
                             int64_t screen, c10::Device device = at::kCPU) {
  check_vector(indptr, "rank", "indptr", at::kLong, device);
  check_vector(seen, "rank", "seen", at::kInt, device);
  TORCH_CHECK_VALUE(k >= 1, "rank: k is ", k, ", expected at least 1");
  TORCH_CHECK_VALUE(screen >= 0 && screen <= 2, "rank: screen is ", screen, ", expected 0 (auto) .. 2 (int8)");
  TORCH_CHECK_VALUE(items <= std::numeric_limits<int32_t>::max(), "rank: ", items, " items, expected fewer than 2^31");
  TORCH_CHECK_VALUE(indptr.numel() == users + 1, "rank: indptr has ", indptr.numel(), " entries, expected ", users + 1,
                    " (users + 1)");
}

}  // namespace recsparse
