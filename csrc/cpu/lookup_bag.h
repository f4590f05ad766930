// lookup_bag: sums or means of rows of a packed table, and the gradients with respect to the kept values and to the weights
// of the samples. T is the type of values, results, gradients and weights, as in lookup.h; 16-bit ones are summed in float.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/row_layout.h"

namespace recsparse {

// Bag b holds the positions [offsets[b], offsets[b + 1]) of ids. An id outside the table stands for row 0. Row `padding`
// adds nothing and does not count for a mean.
template <class T>
struct BagIds {
  TableView table;
  const int64_t* ids;  // [count]
  int64_t count;
  const int64_t* offsets;  // [bags + 1], ascending, from 0 to at most count
  int64_t bags;
  const T* weights;  // [count] factors of the rows, or null
  bool mean;         // divide by the number of rows that count
  int64_t padding;   // a row, or -1
};

template <class T>
struct LookupBagArgs {
  BagIds<T> bags;
  const T* values;
  int64_t capacity;  // length of values
  T* out;            // [bags, dim]; empty bags give zeros
};

// A bag is summed in ascending position.
template <class T>
void lookup_bag(const LookupBagArgs<T>& args, int threads);

template <class T>
struct LookupBagBackwardArgs {
  BagIds<T> bags;
  const T* grad;              // [bags, dim], gradient of the result
  T* grad_values;             // [capacity], zeroed by the caller
  int64_t* workspace;         // 3 * count words
  ArithmeticType<T>* scales;  // [count] of workspace when there are weights or means, else null
};

// The occurrences of a row are summed in ascending position, then its kept columns are written.
template <class T>
void lookup_bag_backward(const LookupBagBackwardArgs<T>& args, int threads);

template <class T>
struct LookupBagWeightsBackwardArgs {
  BagIds<T> bags;  // of sums; the weights themselves are not read
  const T* values;
  int64_t capacity;
  const T* grad;    // [bags, dim]
  T* grad_weights;  // [count], zeroed by the caller; positions behind the last bag and those of `padding` are not written
};

template <class T>
void lookup_bag_weights_backward(const LookupBagWeightsBackwardArgs<T>& args, int threads);

// What the sorted positions of a backward refer to: keys are row << shift | position.
template <class T>
struct BagGradients {
  const uint64_t* keys;
  int shift;
  const int64_t* bag_of;            // by position
  const ArithmeticType<T>* scales;  // by position, or null for 1
};

// One variant for an instruction set: works on the bags, or on the sorted keys, [begin, end).
template <class T>
struct LookupBagKernel {
  // stream: write past the caches; far: see is_far.
  void (*forward)(const LookupBagArgs<T>& args, bool stream, bool far, int64_t begin, int64_t end);
  void (*backward)(const LookupBagBackwardArgs<T>& args, const BagGradients<T>& from, int64_t begin, int64_t end);
  void (*weights_backward)(const LookupBagWeightsBackwardArgs<T>& args, bool far, int64_t begin, int64_t end);
};

}  // namespace recsparse
