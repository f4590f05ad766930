// lookup on the GPU: rows of a packed table by id, and the gradient with respect to the kept values; see cpu/lookup.h for
// the contract. Pointers are to device memory, `stream` is a cudaStream_t on the current device.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/row_layout.h"
#include "cuda/errors.h"

namespace recsparse::cuda {

struct LookupArgs {
  TableView table;
  ValueType type;  // of values and out
  const void* values;
  const int64_t* ids;  // [count]; those outside [0, rows) read row 0 and are reported
  int64_t count;
  void* out;  // [count, dim]
  ErrorSite bad_ids;
};

const char* lookup(const LookupArgs& args, void* stream);

struct LookupBackwardArgs {
  TableView table;
  ValueType type;      // of grad and grad_values
  const void* grad;    // [count, dim]
  const int64_t* ids;  // [count]; bad ones stand for row 0
  int64_t count;
  void* grad_values;  // [capacity]; all of it is written
  int64_t capacity;
  int64_t padding;  // a row that gets no gradient, or -1
  void* workspace;
};

int64_t lookup_backward_workspace_bytes(const LookupBackwardArgs& args);
const char* lookup_backward(const LookupBackwardArgs& args, void* stream);

}  // namespace recsparse::cuda
