// The losses of a call's mini-batches, and its step counter; shared by the ops that train.
#pragma once

#include "core/float_order.h"
#include "cuda/launch.h"

namespace recsparse::cuda {

struct MeanLosses {
  const float* terms;  // [count], one a triple
  const uint32_t* bad;
  int64_t count;
  int64_t full, batches;  // triples of a whole mini-batch; mini-batches
  float* loss;            // [batches]
  int64_t* step;          // [1]
};

struct LossParts {
  double sums[kThreads];
};

// The mean of each mini-batch's terms, NaN where `bad`; advances the step counter. Grid: a block a mini-batch; a thread adds every
// 256th term, then a fixed tree. Bytes moved: 4 a triple.
static __global__ void __launch_bounds__(kThreads) mean_losses_kernel(MeanLosses args) {
  LossParts& parts = shared<LossParts>();
  for (int64_t b = blockIdx.x; b < args.batches; b += gridDim.x) {
    const int64_t begin = b * args.full, end = smaller(begin + args.full, args.count);
    double sum = 0;
    if (!*args.bad) {
      for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) sum += args.terms[i];
    }
    parts.sums[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = kThreads / 2; half > 0; half /= 2) {
      if (threadIdx.x < half) parts.sums[threadIdx.x] += parts.sums[threadIdx.x + half];
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      const double mean = parts.sums[0] / static_cast<double>(end - begin);
      args.loss[b] = *args.bad ? bits_float(0x7fc00000u) : static_cast<float>(mean);
    }
    __syncthreads();
  }
  if (global_thread() == 0 && !*args.bad) *args.step += args.batches;
}

inline void mean_losses(const MeanLosses& args, void* stream) {
  launch("mean_losses", mean_losses_kernel, grid_for(args.batches, 1), kThreads, stream, args);
}

}  // namespace recsparse::cuda
