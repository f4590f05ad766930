// Checks of the arguments of `sample`, shared by the backends.
#pragma once

#include <algorithm>
#include <limits>

#include "core/synthetic.h"
#include "torch/check.h"

namespace recsparse {

inline void check_draws(int64_t start, int64_t count) {
  TORCH_CHECK_VALUE(start >= 0 && count >= 0 && count <= std::numeric_limits<int64_t>::max() - start,
                    "start and count must not be negative, got ", start, " and ", count);
}

// What the tensors hold is not looked at.
inline void check_sample(const at::Tensor& indptr, const at::Tensor& items, const at::Tensor& users, int64_t n_items,
                         int64_t start, int64_t count, int64_t mode, c10::Device device = at::kCPU) {
  check_vector(indptr, "sample", "indptr", at::kLong, device);
  check_vector(items, "sample", "items", at::kInt, device);
  check_vector(users, "sample", "users", at::kLong, device);
  check_draws(start, count);
  const int64_t rows = users.numel();
  TORCH_CHECK_VALUE(indptr.numel() == rows + 1, "indptr: ", rows + 1, " entries are expected (users + 1), got ",
                    indptr.numel());
  TORCH_CHECK_VALUE(n_items >= 1 && n_items <= std::numeric_limits<int32_t>::max(),
                    "n_items: expected 1 .. 2^31 - 1, got ", n_items);
  TORCH_CHECK_VALUE(mode == 0 || mode == 1, "mode: expected 0 (users) or 1 (interactions), got ", mode);
  TORCH_CHECK_VALUE(count == 0 || (rows > 0 && items.numel() > 0),
                    "nothing to draw from: no user has both a positive and a negative");
}

inline SyntheticSpec check_synthetic(int64_t n_users, int64_t n_items, int64_t min_degree, int64_t max_degree,
                                     int64_t seed, int64_t start, int64_t count) {
  check_draws(start, count);
  TORCH_CHECK_VALUE(n_users >= 1, "n_users: expected at least 1, got ", n_users);
  TORCH_CHECK_VALUE(n_items >= 2 && n_items <= std::numeric_limits<int32_t>::max(),
                    "n_items: expected 2 .. 2^31 - 1, got ", n_items);
  const int64_t limit = std::min<int64_t>(kMaxSyntheticDegree, n_items - 1);
  TORCH_CHECK_VALUE(1 <= min_degree && min_degree <= max_degree && max_degree <= limit,
                    "degrees: expected 1 <= min <= max <= ", limit, ", got ", min_degree, " and ", max_degree);
  return make_synthetic(n_users, n_items, static_cast<int32_t>(min_degree), static_cast<int32_t>(max_degree),
                        static_cast<uint64_t>(seed));
}

// The tensors that a call writes.
inline void check_draw_outputs(const at::Tensor& users, const at::Tensor& pos, const at::Tensor& neg, int64_t count,
                               c10::Device device) {
  check_vector(users, "sample_synthetic", "users", at::kLong, device);
  check_vector(pos, "sample_synthetic", "pos", at::kLong, device);
  check_vector(neg, "sample_synthetic", "neg", at::kLong, device);
  TORCH_CHECK_VALUE(users.numel() == count && pos.numel() == count && neg.numel() == count,
                    "sample_synthetic: users, pos and neg have ", users.numel(), ", ", pos.numel(), " and ",
                    neg.numel(), " entries, expected ", count);
}

}  // namespace recsparse
