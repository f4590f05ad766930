// init_index, init_values on the GPU: the bits of cpu/init.h. Pointers are to device memory.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/row_layout.h"

namespace recsparse::cuda {

constexpr int kRankBuckets = 1 << 16;

// How many slots have a random rank in each bucket: level 0 by its upper 16 bits, level 1 by its lower ones, of those ranks
// whose upper bits are `upper`.
struct RankHistogramArgs {
  Layout layout;
  uint64_t seed;
  int level;
  uint32_t upper;
  uint64_t* counts;  // [kRankBuckets], zeroed by the caller
};

const char* rank_histogram(const RankHistogramArgs& args, void* stream);

// Rows keep what cpu/init.h says: all columns, the first ones, or those whose rank is below `threshold`.
struct InitIndexArgs {
  Layout layout;
  int32_t start;  // InitStart
  int64_t kept;   // of a prefix start
  uint64_t seed;
  uint64_t threshold;  // of a bernoulli start
  uint64_t* index;
  uint8_t* cols;
  uint64_t* result;  // [2]: kept weights; ~0
  void* workspace;
};

int64_t init_index_workspace_bytes(const Layout& layout);
const char* init_index(const InitIndexArgs& args, void* stream);

struct InitValuesArgs {
  TableView table;
  ValueType type;
  uint64_t seed;
  float scale;
  void* values;
};

const char* init_values(const InitValuesArgs& args, void* stream);

}  // namespace recsparse::cuda
