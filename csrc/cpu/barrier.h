// A barrier for short steps: spins for a moment, then sleeps. OpenMP's own barrier spins for milliseconds, which on a busy
// machine takes the core away from the very thread that is waited for.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

namespace recsparse {

class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}

  void wait() {
    if (threads_ == 1) return;
    const uint32_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1);
      if (sleepers_.load() > 0) futex(FUTEX_WAKE_PRIVATE, INT_MAX);
      return;
    }
    for (int spin = 0; spin < kSpins; ++spin) {
      if (phase_.load(std::memory_order_acquire) != phase) return;
      pause();
    }
    sleepers_.fetch_add(1);
    while (phase_.load() == phase) futex(FUTEX_WAIT_PRIVATE, phase);
    sleepers_.fetch_sub(1);
  }

 private:
  // About 200 us where a pause takes 140 cycles: well above the time to wake a sleeper (60 us here). With a shorter spin one
  // sleeper is late for the next barrier, so that the other one goes to sleep there, and so on for ever.
  static constexpr int kSpins = 4000;

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  void futex(int operation, uint32_t value) { syscall(SYS_futex, &phase_, operation, value, nullptr, nullptr, 0); }

  const int threads_;
  alignas(64) std::atomic<uint32_t> phase_{0};
  std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<int> arrived_{0};
};

}  // namespace recsparse
