// lookup_bag on the GPU: sums or means of rows, and the gradients; see cpu/lookup_bag.h. Pointers are to device memory.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/row_layout.h"
#include "cuda/errors.h"

namespace recsparse::cuda {

// Bag b holds the positions [offsets[b], offsets[b + 1]) of ids. Offsets that do not ascend, or leave the ids, are cut to
// size and reported.
struct BagIds {
  TableView table;
  ValueType type;      // of values, weights, results and gradients
  const int64_t* ids;  // [count]; a bad one stands for row 0 and is reported
  int64_t count;
  const int64_t* offsets;  // [bags + 1]
  int64_t bags;
  const void* weights;  // [count] factors of the rows, or null
  bool mean;            // divide by the number of rows that count
  int64_t padding;      // a row that adds nothing and does not count, or -1
  ErrorSite bad_ids, bad_offsets;
};

struct LookupBagArgs {
  BagIds bags;
  const void* values;
  void* out;  // [bags, dim]; empty bags give zeros
};

const char* lookup_bag(const LookupBagArgs& args, void* stream);

struct LookupBagBackwardArgs {
  BagIds bags;
  const void* grad;   // [bags, dim]
  void* grad_values;  // [capacity]; all of it is written
  int64_t capacity;
  void* workspace;
};

int64_t lookup_bag_backward_workspace_bytes(const LookupBagBackwardArgs& args);
const char* lookup_bag_backward(const LookupBagBackwardArgs& args, void* stream);

struct LookupBagWeightsBackwardArgs {
  BagIds bags;  // of sums; the weights themselves are not read
  const void* values;
  const void* grad;    // [bags, dim]
  void* grad_weights;  // [count]; all of it is written, 0 for `padding`
};

const char* lookup_bag_weights_backward(const LookupBagWeightsBackwardArgs& args, void* stream);

}  // namespace recsparse::cuda
