// Writing to an ErrorRecord; see errors.h. Off the common path: a right argument costs a comparison.
#pragma once

#include "cuda/errors.h"
#include "cuda/launch.h"

namespace recsparse::cuda {

__device__ __forceinline__ void report(const ErrorSite& site, int64_t position, int64_t id) {
  if (site.record == nullptr) return;
  ErrorRecord* record = site.record;
  atomicAdd(reinterpret_cast<unsigned long long*>(&record->count), 1ull);
  const uint64_t order = ~((site.call & 0xffffff) << 40 | static_cast<uint64_t>(position));
  volatile uint64_t* earliest = &record->order;
  if (order <= *earliest) return;
  while (atomicCAS(&record->lock, 0u, 1u) != 0u) {
  }
  __threadfence();
  if (order > *earliest) {
    *earliest = order;
    record->fault = static_cast<uint32_t>(site.fault);
    record->bounds = site.bounds;
    record->id = id;
    record->limit = site.limit;
    record->total = site.total;
  }
  __threadfence();
  atomicExch(&record->lock, 0u);
}

// `id` if it is in [0, limit), else a note and 0.
__device__ __forceinline__ int64_t checked_id(const ErrorSite& site, int64_t limit, int64_t position, int64_t id) {
  if (static_cast<uint64_t>(id) < static_cast<uint64_t>(limit)) return id;
  report(site, position, id);
  return 0;
}

}  // namespace recsparse::cuda
