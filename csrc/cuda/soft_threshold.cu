#include "core/row_layout.h"
#include "cuda/errors.cuh"
#include "cuda/launch.h"
#include "cuda/soft_threshold.h"

namespace recsparse::cuda {
namespace {

constexpr int kWarps = kThreads / 32;
constexpr int kColumns = kMaxDim / 32;  // of a lane
constexpr int64_t kPartialRows = 64;    // that a warp adds up before it writes

__device__ __forceinline__ float gate(float s) { return 1.0f / (1.0f + expf(-s)); }

__device__ __forceinline__ int64_t row_of(const SoftThresholdArgs& args, const ErrorSite& bad_ids, int64_t at) {
  if (args.ids == nullptr) return at;
  const int64_t id = args.ids[at];
  if (static_cast<uint64_t>(id) < static_cast<uint64_t>(args.rows)) return id;
  if (threadIdx.x % 32 == 0) report(bad_ids, at, id);
  return 0;
}

__device__ __forceinline__ float threshold_at(const SoftThresholdArgs& args, int64_t row, int64_t column) {
  const Thresholds& own = args.thresholds;
  const int64_t width = own.by_column ? args.dim : 1;
  return gate(own.s[(own.by_row ? row * width : 0) + (own.by_column ? column : 0)]);
}

// Grid: grid_for(count, 8) blocks; a warp takes a row, its lanes every 32nd column, so that each access is one run. Bytes
// moved, a row: 8 of the id, dim values read and dim written, and its thresholds.
__global__ void __launch_bounds__(kThreads) soft_threshold_kernel(SoftThresholdArgs args, ErrorSite bad_ids) {
  for (int64_t i = global_thread() / 32; i < args.count; i += global_threads() / 32) {
    const int64_t row = row_of(args, bad_ids, i);
    for (int64_t column = threadIdx.x % 32; column < args.dim; column += 32) {
      const float value = args.values[row * args.dim + column];
      float left = fabsf(value) - threshold_at(args, row, column);
      if (left <= 0.0f) left = 0.0f;  // NaN stays NaN
      args.out[i * args.dim + column] = value > 0.0f ? left : 0.0f - left;
    }
  }
}

// Grid: grid_for(partials, 8) blocks; a warp takes 64 rows, one after the other. Bytes moved, a row: 8 of the id, dim of
// values and of the gradient read, dim written, its thresholds, and their gradients where rows have their own.
__global__ void __launch_bounds__(kThreads)
    soft_threshold_backward_kernel(SoftThresholdBackwardArgs args, ErrorSite bad_ids, int64_t partials) {
  const SoftThresholdArgs& forward = args.forward;
  const bool by_row = forward.thresholds.by_row, by_column = forward.thresholds.by_column;
  const int64_t dim = forward.dim;
  const int lane = threadIdx.x % 32;
  for (int64_t p = global_thread() / 32; p < partials; p += global_threads() / 32) {
    float sums[kColumns] = {};  // of the lane's columns, over the rows
    const int64_t begin = p * kPartialRows, end = smaller(begin + kPartialRows, forward.count);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = row_of(forward, bad_ids, i);
      float of_row = 0.0f;
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        const int64_t column = lane + 32 * k, at = i * dim + column;
        if (column >= dim) continue;
        const float value = forward.values[row * dim + column], g = threshold_at(forward, row, column);
        const float grad = fabsf(value) - g > 0.0f ? args.grad[at] : 0.0f;
        const float slope = g * (1.0f - g) * grad;
        const float of_s = value > 0.0f ? 0.0f - slope : slope;
        args.grad_values[at] = grad;
        if (by_row && by_column) args.grad_thresholds[at] = of_s;
        of_row += of_s;
        sums[k] += of_s;
      }
      if (by_row && !by_column) {
        for (int step = 16; step > 0; step /= 2) of_row += __shfl_xor_sync(kWholeWarp, of_row, step);
        if (lane == 0) args.grad_thresholds[i] = of_row;
      }
    }
    if (by_row) continue;
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      if (lane + 32 * k < dim) args.partial[p * dim + lane + 32 * k] = sums[k];
    }
  }
}

struct ThresholdParts {
  double sums[kThreads];
};

// The sums of columns of `partial` [partials, dim], or of all of it. Grid: a block a column, or one; a thread adds every 256th
// term, then a fixed tree. Bytes moved: 4 a term.
__global__ void __launch_bounds__(kThreads)
    threshold_sums_kernel(const float* partial, int64_t partials, int64_t dim, bool by_column, float* out) {
  ThresholdParts& parts = shared<ThresholdParts>();
  const int64_t stride = by_column ? dim : 1, terms = by_column ? partials : partials * dim;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < terms; i += kThreads) sum += partial[blockIdx.x + i * stride];
  parts.sums[threadIdx.x] = sum;
  __syncthreads();
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) parts.sums[threadIdx.x] += parts.sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = static_cast<float>(parts.sums[0]);
}

}  // namespace

const char* soft_threshold(const SoftThresholdArgs& args, const ErrorSite& bad_ids, void* stream) {
  launch("soft_threshold", soft_threshold_kernel, grid_for(args.count, kWarps), kThreads, stream, args, bad_ids);
  return launch_error();
}

int64_t soft_threshold_partials(int64_t count) { return (count + kPartialRows - 1) / kPartialRows; }

const char* soft_threshold_backward(const SoftThresholdBackwardArgs& args, const ErrorSite& bad_ids, void* stream) {
  const Thresholds& thresholds = args.forward.thresholds;
  const int64_t partials = soft_threshold_partials(args.forward.count);
  launch("soft_threshold_backward", soft_threshold_backward_kernel, grid_for(partials, kWarps), kThreads, stream, args,
         bad_ids, partials);
  if (!thresholds.by_row) {
    launch("threshold_sums", threshold_sums_kernel, thresholds.by_column ? args.forward.dim : 1, kThreads, stream,
           args.partial, partials, args.forward.dim, thresholds.by_column, args.grad_thresholds);
  }
  return launch_error();
}

}  // namespace recsparse::cuda
