#include "cpu/soft_threshold.h"

#include <algorithm>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace recsparse {

RS_CPU_VARIANTS(SoftThresholdKernel, soft_threshold_kernel);

int64_t soft_threshold_chunks(int64_t count) { return (count + kThresholdChunk - 1) / kThresholdChunk; }

void soft_threshold(const SoftThresholdArgs& args, int threads) {
  const SoftThresholdKernel& kernel = soft_threshold_kernel();
  parallel_for(args.count, kThresholdChunk, threads,
               [&](int64_t begin, int64_t end) { kernel.forward(args, begin, end); });
}

void soft_threshold_backward(const SoftThresholdBackwardArgs& args, int threads) {
  const SoftThresholdKernel& kernel = soft_threshold_kernel();
  const Thresholds& thresholds = args.forward.thresholds;
  const int64_t count = args.forward.count, dim = args.forward.dim;
  parallel_for(count, kThresholdChunk, threads, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; chunk += kThresholdChunk) {
      kernel.backward(args, chunk, std::min(chunk + kThresholdChunk, end));
    }
  });
  if (thresholds.by_row) return;
  double total = 0;
  for (int64_t column = 0; column < dim; ++column) {
    double sum = 0;
    for (int64_t c = 0; c < soft_threshold_chunks(count); ++c) sum += args.partial[c * dim + column];
    if (thresholds.by_column) args.grad_thresholds[column] = static_cast<float>(sum);
    total += sum;
  }
  if (!thresholds.by_column) args.grad_thresholds[0] = static_cast<float>(total);
}

}  // namespace recsparse
