// sample and sample_synthetic on the GPU: the triples of cpu/sample.h, bit for bit. Pointers are to device memory.
#pragma once

#include <cstdint>

#include "core/sampling.h"
#include "core/synthetic.h"
#include "cuda/errors.h"

namespace recsparse::cuda {

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
  int64_t* out_users;  // [count] each
  int64_t* out_pos;
  int64_t* out_neg;
  ErrorSite bad_row;
};

const char* sample(const SampleArgs& args, void* stream);

// Draws start .. start + count of a generated stream.
struct SampleSyntheticArgs {
  SyntheticSpec spec;
  int64_t start;
  int64_t count;
  int64_t* out_users;  // [count] each
  int64_t* out_pos;
  int64_t* out_neg;
};

const char* sample_synthetic(const SampleSyntheticArgs& args, void* stream);

}  // namespace recsparse::cuda
