// The one place that knows OpenMP. Work is cut in fixed chunks whose results do not depend on who computes them, so the
// bits are the same for any number of threads.
//
// RECSPARSE_STD_THREADS makes it std::thread instead: ThreadSanitizer does not see the synchronisation inside libgomp.
#pragma once

#if defined(RECSPARSE_STD_THREADS)
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

#include <cstdint>
#include <stdexcept>
#include <string>

namespace recsparse {

// Runs body(rank) once on each of `threads` threads. Throws before any of them has begun when OpenMP grants fewer (a call
// from inside another parallel region, OMP_THREAD_LIMIT): ranks that never run would leave work undone.
template <class Body>
static inline void parallel_region(int threads, Body&& body) {
  if (threads <= 1) {
    body(0);
    return;
  }
#if defined(RECSPARSE_STD_THREADS)
  std::vector<std::thread> others;
  for (int rank = 1; rank < threads; ++rank) others.emplace_back([&body, rank] { body(rank); });
  body(0);
  for (std::thread& other : others) other.join();
#else
  int granted = 0;
#pragma omp parallel num_threads(threads)
  {
    if (omp_get_num_threads() == threads) {
      body(omp_get_thread_num());
    } else if (omp_get_thread_num() == 0) {
      granted = omp_get_num_threads();
    }
  }
  if (granted) {
    throw std::runtime_error("OpenMP grants " + std::to_string(granted) + " of " + std::to_string(threads) +
                             " threads; call torch.set_num_threads(" + std::to_string(granted) + ")");
  }
#endif
}

// The contiguous part of [0, n) that belongs to `rank` of `threads`, cut at multiples of `grain`.
struct Range {
  int64_t begin, end;
};
static inline Range static_range(int64_t n, int64_t grain, int rank, int threads) {
  const int64_t chunks = (n + grain - 1) / grain;
  const int64_t begin = chunks * rank / threads * grain, end = chunks * (rank + 1) / threads * grain;
  return Range{begin < n ? begin : n, end < n ? end : n};
}

// body(begin, end) over [0, n) in one contiguous part a thread.
template <class Body>
static inline void parallel_for(int64_t n, int64_t grain, int threads, Body&& body) {
  const int64_t chunks = (n + grain - 1) / grain;
  if (chunks < threads) threads = chunks < 1 ? 1 : static_cast<int>(chunks);
  parallel_region(threads, [&](int rank) {
    const Range range = static_range(n, grain, rank, threads);
    if (range.begin < range.end) body(range.begin, range.end);
  });
}

}  // namespace recsparse
