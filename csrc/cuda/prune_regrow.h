// prune_regrow_ on the GPU: the bits of cpu/prune_regrow.h. Pointers are to device memory but for the plan's.
//
// The table is rebuilt in place, slab by slab, as on the CPU and in the same order (cpu/prune_regrow.cpp says why that order
// is safe): what a slab will hold is written to scratch memory, then copied to its place. Where the slabs go is known to the
// device; the host reads that plan once, because it orders the launches and raises the errors.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/prune_status.h"
#include "core/row_layout.h"

namespace recsparse::cuda {

struct PruneRegrowArgs {
  Layout layout;  // kind bits or cols8
  uint64_t* index;
  uint8_t* cols;  // [capacity] for cols8
  ValueType value_type;
  void* values;          // [capacity]
  float* state;          // [state_per_weight * capacity], or null
  int state_per_weight;  // 0, 1 or 2
  int64_t capacity;
  const int64_t* keys;  // [candidates]
  const float* scores;  // [candidates]
  int64_t candidates;
  int64_t drop, grow;
  void* workspace;
};

// A slab is so many index blocks.
struct PruneRegrowPlan {
  PruneRegrowResult result;
  int64_t nnz, new_nnz;
};
struct SlabStart {
  int64_t old_start, new_start;
};
int64_t prune_regrow_slabs(const Layout& layout);

int64_t prune_regrow_workspace_bytes(const PruneRegrowArgs& args);

// plan: [1]; slabs: [prune_regrow_slabs + 1], the last one says where the weights end.
const char* prune_regrow_plan(const PruneRegrowArgs& args, PruneRegrowPlan* plan, SlabStart* slabs, void* stream);

// `plan` and `slabs` have been copied to the host; the workspace is as the plan left it.
int64_t prune_regrow_scratch_bytes(const PruneRegrowArgs& args, const SlabStart* slabs);
const char* prune_regrow_rebuild(const PruneRegrowArgs& args, const PruneRegrowPlan& plan, const SlabStart* slabs,
                                 void* scratch, void* stream);

}  // namespace recsparse::cuda
