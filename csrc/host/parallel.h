// Rows cut in one contiguous piece a thread. Callers write each row independently, so the cut never shows in a result.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace recsparse::host {

// Calls work(begin, end) on `threads` threads (0: one a processor); `work` must not throw.
template <class Work>
void parallel_rows(int64_t rows, int threads, const Work& work) {
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const int64_t pieces = std::max<int64_t>(1, std::min<int64_t>(threads, rows));
  std::vector<std::thread> others;
  for (int64_t t = 1; t < pieces; ++t) {
    others.emplace_back([&work, rows, pieces, t] { work(rows * t / pieces, rows * (t + 1) / pieces); });
  }
  work(0, rows / pieces);
  for (std::thread& other : others) other.join();
}

}  // namespace recsparse::host
