// CPU kernels of `sample` and `sample_synthetic`.
#pragma once

#include <cstdint>

#include "core/sampling.h"
#include "core/synthetic.h"

namespace recsparse::cpu {

struct SampleOut {
  int64_t* users;  // [count] each
  int64_t* pos;
  int64_t* neg;
};

// CSR whose row r holds the positives of user users[r]: at least one and fewer than n_items of them, ascending, unique.
struct SampleArgs {
  const int64_t* indptr;  // [n_rows + 1]
  const int32_t* items;   // [nnz]
  const int64_t* users;   // [n_rows]
  int64_t n_rows;
  int64_t nnz;
  int64_t n_items;
  uint64_t seed;
  int64_t start;  // number of the first draw
  int64_t count;
  SampleMode mode;
  int threads;
};

// Returns -1, or the lowest row met that has no positive, no negative, or lies outside `items`.
int64_t sample(const SampleArgs& args, const SampleOut& out);

// Draws start .. start + count of the generated stream `spec`: user uniform, then one of its interactions, then an item
// that is none of its interactions.
void sample_synthetic(const SyntheticSpec& spec, int64_t start, int64_t count, int threads, const SampleOut& out);

}  // namespace recsparse::cpu
