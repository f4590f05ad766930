// Checks of (user, positive, negative) triples, shared by the BPR ops.
#pragma once

#include "cpu/bpr_step.h"
#include "torch/check.h"

namespace recsparse {

inline void check_ids(const char* op, const char* name, const at::Tensor& ids, int64_t limit) {
  const int64_t bad = find_bad_id(ids.const_data_ptr<int64_t>(), ids.numel(), limit, op_threads());
  TORCH_CHECK_INDEX(bad < 0, op, ": ", name, "[", bad, "] = ", ids.const_data_ptr<int64_t>()[bad < 0 ? 0 : bad],
                    " is out of range, expected 0..", limit - 1);
}

// Users are rows [0, item_offset) of the joint table, items the rest. The ids themselves are not looked at.
inline void check_triple_shapes(const char* op, const at::Tensor& users, const at::Tensor& pos, const at::Tensor& neg,
                                int64_t rows, int64_t item_offset, c10::Device device = at::kCPU) {
  check_vector(users, op, "users", at::kLong, device);
  check_vector(pos, op, "pos", at::kLong, device);
  check_vector(neg, op, "neg", at::kLong, device);
  TORCH_CHECK_VALUE(pos.numel() == users.numel() && neg.numel() == users.numel(), op, ": users, pos and neg have ",
                    users.numel(), ", ", pos.numel(), " and ", neg.numel(), " entries, expected the same number");
  TORCH_CHECK_VALUE(item_offset >= 0 && item_offset <= rows, op, ": item_offset is ", item_offset,
                    ", expected 0..rows = ", rows);
}

inline void check_triples(const char* op, const at::Tensor& users, const at::Tensor& pos, const at::Tensor& neg,
                          int64_t rows, int64_t item_offset) {
  check_triple_shapes(op, users, pos, neg, rows, item_offset);
  check_ids(op, "users", users, item_offset);
  check_ids(op, "pos", pos, rows - item_offset);
  check_ids(op, "neg", neg, rows - item_offset);
}

}  // namespace recsparse
