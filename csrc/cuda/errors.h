// What a kernel found wrong with its arguments. A kernel cannot raise an error and nobody waits for it, so it leaves a note
// in a record in device memory, which the host reads the next time it waits for the device anyway (csrc/torch/cuda_call.h).
#pragma once

#include <cstdint>

namespace recsparse::cuda {

// Which argument of which op; names in csrc/torch/device_errors_cuda.cpp, in this order.
enum class Fault : uint32_t {
  none,
  lookup_ids,
  lookup_bag_ids,
  lookup_bag_offsets,
  bpr_step_users,
  bpr_step_pos,
  bpr_step_neg,
  bpr_grow_scores_users,
  bpr_grow_scores_pos,
  bpr_grow_scores_neg,
  adam_ids,
  adagrad_ids,
  rowwise_adagrad_ids,
  sgd_ids,
  select_nan,
  sample_row,
  rank_users,
  rank_indptr,
  rank_item_row,
  rank_user_row,
  lightgcn_step_users,
  lightgcn_step_pos,
  lightgcn_step_neg,
  lightgcn_grow_scores_users,
  lightgcn_grow_scores_pos,
  lightgcn_grow_scores_neg,
  soft_threshold_ids,
  soft_threshold_backward_ids,
};

// One a device, zeroed by the host when it has read it.
struct ErrorRecord {
  uint32_t lock;
  uint32_t fault;   // of the earliest mistake
  uint64_t order;   // ~(number of the call << 40 | position): the largest is the earliest, and 0 is none
  uint64_t count;   // mistakes since the record was read
  int64_t id;       // the value at that position
  int64_t limit;    // what it should have been below
  int64_t total;    // entries of that argument
  uint32_t bounds;  // the mode of the call: 0 raises, 1 warns
};

// Where a call's argument reports. `record` is null where mistakes are to be passed over.
struct ErrorSite {
  ErrorRecord* record;
  Fault fault;
  uint32_t bounds;
  uint64_t call;  // its low 24 bits count
  int64_t limit;
  int64_t total;
};

}  // namespace recsparse::cuda
