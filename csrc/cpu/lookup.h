// lookup: rows of a packed table by id, to dense rows; and the gradient with respect to the kept values. T is float, Half,
// BFloat16 or (portable) double, the type of values, rows and gradients; 16-bit gradients are summed in float.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/row_layout.h"

namespace recsparse {

template <class T>
struct LookupArgs {
  TableView table;
  const T* values;
  int64_t capacity;    // length of values
  const int64_t* ids;  // [count]
  int64_t count;
  T* out;  // [count, dim]
};

// Ids outside [0, rows) read row 0; `first` is the position of the first one, or -1.
struct BadIds {
  int64_t count = 0;
  int64_t first = -1;
};

template <class T>
BadIds lookup(const LookupArgs<T>& args, int threads);

template <class T>
struct LookupBackwardArgs {
  TableView table;
  const T* grad;  // [count, dim], gradient of the looked-up rows
  const int64_t* ids;
  int64_t count;
  T* grad_values;       // [capacity], zeroed by the caller
  uint64_t* workspace;  // 2 * count words
  int64_t padding;      // a row that gets no gradient, or -1
};

// Duplicate ids are summed in ascending position, then the kept columns are written. Bad ids are not allowed here.
template <class T>
void lookup_backward(const LookupBackwardArgs<T>& args, int threads);

// One variant for an instruction set: works on the ids [begin, end), or on sorted keys (row << shift | position).
template <class T>
struct LookupKernel {
  // stream: write past the caches; far: see is_far.
  BadIds (*forward)(const LookupArgs<T>& args, bool stream, bool far, int64_t begin, int64_t end);
  void (*backward)(const LookupBackwardArgs<T>& args, const uint64_t* keys, int shift, int64_t begin, int64_t end);
};

}  // namespace recsparse
