// (user, positive, negative) triples on the GPU, shared by the BPR ops. Pointers are to device memory.
#pragma once

#include <cstdint>

#include "cuda/errors.h"

namespace recsparse::cuda {

struct BprTriples {
  const int64_t* users;  // [count], rows [0, item_offset) of the joint table
  const int64_t* pos;    // items, whose rows are item_offset + id
  const int64_t* neg;
  int64_t count;
  int64_t item_offset;
  int64_t rows;  // of the table
  ErrorSite bad_users, bad_pos, bad_neg;
};

}  // namespace recsparse::cuda
