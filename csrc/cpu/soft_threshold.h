// soft_threshold: rows of a dense table through learned thresholds (PEP, arXiv 2101.07577):
//   out = sign(v) max(|v| - g, 0), g = sigmoid(s)
// and, with A = [|v| > g], the gradients  A grad  with respect to v and  -g (1 - g) sign(v) A grad  with respect to s.
// The thresholded table never exists: only the rows that are asked for do.
#pragma once

#include <cstdint>

namespace recsparse {

// Thresholds s of one value, of a value a column, a row, or an element: each axis has them or shares them.
struct Thresholds {
  const float* s;
  bool by_row, by_column;
};

struct SoftThresholdArgs {
  int64_t rows, dim;    // of the table; dim <= kMaxDim
  const float* values;  // [rows, dim]
  Thresholds thresholds;
  const int64_t* ids;  // [count], valid; or null: the rows from 0 on
  int64_t count;
  float* out;  // [count, dim]
};

void soft_threshold(const SoftThresholdArgs& args, int threads);

struct SoftThresholdBackwardArgs {
  SoftThresholdArgs forward;  // without out
  const float* grad;          // [count, dim]
  float* grad_values;         // [count, dim]
  float*
      grad_thresholds;  // [count or 1, dim or 1]: a row for each id where rows have thresholds of their own, else one
  float* partial;       // [chunks, dim], where rows share thresholds
};

int64_t soft_threshold_chunks(int64_t count);

// The bits do not depend on `threads`.
void soft_threshold_backward(const SoftThresholdBackwardArgs& args, int threads);

// ---- between the driver and the kernels --------------------------------------------------------------------------

constexpr int64_t kThresholdChunk = 256;  // rows: the unit of work, and of the partial sums

struct SoftThresholdKernel {
  // Positions [begin, end).
  void (*forward)(const SoftThresholdArgs& args, int64_t begin, int64_t end);
  // The same, of one chunk.
  void (*backward)(const SoftThresholdBackwardArgs& args, int64_t begin, int64_t end);
};

}  // namespace recsparse
