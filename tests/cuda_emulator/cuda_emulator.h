// Runs csrc/cuda/*.cu on the CPU: the very same kernels, compiled by g++, for tests on machines without a GPU.
//
// Blocks run one after another. The threads of a block are fibers on one OS thread; a fiber runs until it meets others:
// at __syncthreads, or at a collective of its warp. Collectives must name the whole warp, as the kernels here do. The
// memory of `shared<T>()` is filled with garbage after every block, so that a kernel that reads what it did not write is
// seen. RECSPARSE_EMULATOR_ORDER=reverse runs the threads of a block from the last to the first: a missing barrier that
// one order hides, the other shows. A deadlock, or a thread that leaves while its warp waits, aborts with a message.
// Not emulated: memory ordering, blocks at the same time, timing.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
static inline float2 make_float2(float x, float y) { return float2{x, y}; }

struct EmulatedDim {
  unsigned x;
};
extern EmulatedDim threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

// Runs body(arg) for every thread of every block; returns when the grid is done.
void run_grid(const char* name, int64_t blocks, int threads, void (*body)(void*), void* arg);

void barrier();
// Exchanges 64-bit words within the warp: all 32 lanes give one, and each may read those of all the others.
const uint64_t* exchange(uint64_t word);
// Called with the region behind a `shared<T>()`.
void touch_shared(void* region, size_t bytes);

template <class T>
uint64_t to_word(T value) {
  static_assert(sizeof(T) <= 8, "a lane gives at most eight bytes");
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return word;
}
template <class T>
T from_word(uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

void check_mask(unsigned mask);

}  // namespace emulator

static inline void __syncthreads() { emulator::barrier(); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulator::check_mask(mask);
  emulator::exchange(0);
}
static inline void __threadfence() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  emulator::check_mask(mask);
  const uint64_t* words = emulator::exchange(emulator::to_word(value));
  const int lane = threadIdx.x % 32;
  return emulator::from_word<T>(words[lane / width * width + source % width]);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other, int = 32) {
  emulator::check_mask(mask);
  const uint64_t* words = emulator::exchange(emulator::to_word(value));
  return emulator::from_word<T>(words[(threadIdx.x % 32) ^ static_cast<unsigned>(other)]);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  emulator::check_mask(mask);
  const uint64_t* words = emulator::exchange(emulator::to_word(value));
  const unsigned lane = threadIdx.x % 32;
  return lane % width < delta ? value : emulator::from_word<T>(words[lane - delta]);
}
static inline unsigned __ballot_sync(unsigned mask, bool predicate) {
  emulator::check_mask(mask);
  const uint64_t* words = emulator::exchange(predicate);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) votes |= static_cast<unsigned>(words[i]) << i;
  return votes;
}
static inline bool __any_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline bool __all_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) == 0xffffffffu; }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T>
T __ldg(const T* p) {
  return *p;
}

// Threads run one at a time: atomics are ordinary operations.
template <class T>
T atomicAdd(T* p, T value) {
  const T before = *p;
  *p = before + value;
  return before;
}
template <class T>
T atomicMin(T* p, T value) {
  const T before = *p;
  *p = value < before ? value : before;
  return before;
}
template <class T>
T atomicMax(T* p, T value) {
  const T before = *p;
  *p = value > before ? value : before;
  return before;
}
template <class T>
T atomicOr(T* p, T value) {
  const T before = *p;
  *p = before | value;
  return before;
}
template <class T>
T atomicCAS(T* p, T expected, T value) {
  const T before = *p;
  if (before == expected) *p = value;
  return before;
}
template <class T>
T atomicExch(T* p, T value) {
  const T before = *p;
  *p = value;
  return before;
}
