// select on the GPU: the exact k-th largest key of an array, without the host; see cpu/select.h. Pointers are to device
// memory.
//
// Radix select from the top digit: a histogram of the digit of all keys that agree with the digits found so far, then one
// block finds the bucket with the k-th key. Three passes for 32-bit keys, two for magnitudes of 16 bits.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "cuda/errors.h"

namespace recsparse::cuda {

// What is searched, and what was found: the k largest keys are {key > threshold} and the first `ties` of {key == threshold}.
struct SelectState {
  int64_t count;       // keys
  int64_t k;           // 0 <= k <= count
  uint32_t threshold;  // all ones for k = 0
  int64_t ties;
};

enum class SelectKeys : int32_t {
  magnitudes32 = 0,  // of floats
  magnitudes16 = 1,  // of halves or bfloat16s
  words = 2,         // uint32 as they are
};

struct SelectArgs {
  SelectKeys kind;
  const void* keys;
  int64_t room;        // `state->count` is at most this
  SelectState* state;  // count and k are read, threshold and ties written
  uint32_t infinity;   // larger magnitudes are NaN and reported
  ErrorSite nan;
  void* workspace;
};

int64_t select_workspace_bytes();
const char* select(const SelectArgs& args, void* stream);

// The same for `count` values and k known to the host; writes a threshold of the values' type, and ties. k = 0 gives
// infinity.
struct SelectValuesArgs {
  ValueType type;
  const void* values;
  int64_t count, k;
  void* threshold;  // [1] of the type
  int64_t* ties;    // [1]
  ErrorSite nan;
  void* workspace;
};

int64_t select_values_workspace_bytes();
const char* select_values(const SelectValuesArgs& args, void* stream);

}  // namespace recsparse::cuda
