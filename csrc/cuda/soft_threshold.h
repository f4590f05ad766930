// soft_threshold on the GPU: rows of a dense table through learned thresholds, and its gradients; see cpu/soft_threshold.h
// for the contract. Pointers are to device memory, `stream` is a cudaStream_t on the current device.
#pragma once

#include <cstdint>

#include "cpu/soft_threshold.h"
#include "cuda/errors.h"

namespace recsparse::cuda {

// Of args, ids outside [0, rows) read row 0 and are reported.
const char* soft_threshold(const SoftThresholdArgs& args, const ErrorSite& bad_ids, void* stream);

// Rows of `partial`.
int64_t soft_threshold_partials(int64_t count);
const char* soft_threshold_backward(const SoftThresholdBackwardArgs& args, const ErrorSite& bad_ids, void* stream);

}  // namespace recsparse::cuda
