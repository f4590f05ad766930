// What every kernel file needs from the CUDA runtime, and its place when the same file is run by the emulator of the tests
// (tests/cuda_emulator): launching, shared memory, grid sizes, errors. Included by .cu files only.
//
// A launcher takes POD arguments, a workspace and a stream. It allocates nothing and never waits for the device, so it can
// be captured in a CUDA graph. It returns nullptr, or a message that lives forever.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(RECSPARSE_CUDA_EMULATOR)
#include "cuda_emulator.h"
#else
#include <cuda_runtime.h>
#endif

#include "core/macros.h"

namespace recsparse::cuda {

constexpr int kThreads = 256;  // a block: eight warps, so that eight blocks fill the 2,048 threads of a multiprocessor
constexpr unsigned kWholeWarp = 0xffffffffu;

#if defined(RECSPARSE_CUDA_EMULATOR)

constexpr bool kEmulated = true;

inline const char* launch_error() { return nullptr; }
inline int multiprocessors() { return 2; }  // few, so that kernels stride over the rest of their work
inline void clear(void* p, int64_t bytes, void*) {
  if (bytes > 0) std::memset(p, 0, static_cast<size_t>(bytes));
}
inline void copy(void* to, const void* from, int64_t bytes, void*) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), int64_t blocks, int threads, void*, A... args) {
  if (blocks == 0) return;
  auto body = [&] { kernel(args...); };
  emulator::run_grid(name, blocks, threads, [](void* self) { (*static_cast<decltype(body)*>(self))(); }, &body);
}

// The block's one object of type T, not initialised.
template <class T>
T& shared() {
  static T storage;
  emulator::touch_shared(&storage, sizeof(storage));
  return storage;
}

#else

constexpr bool kEmulated = false;

inline const char* launch_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

inline int multiprocessors() {
  int device = 0, count = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

inline void clear(void* p, int64_t bytes, void* stream) {
  if (bytes > 0) cudaMemsetAsync(p, 0, static_cast<size_t>(bytes), static_cast<cudaStream_t>(stream));
}

inline void copy(void* to, const void* from, int64_t bytes, void* stream) {
  if (bytes <= 0) return;
  cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream));
}

template <class... P, class... A>
void launch(const char*, void (*kernel)(P...), int64_t blocks, int threads, void* stream, A... args) {
  if (blocks == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchKernelEx(&config, kernel, args...);
}

template <class T>
__device__ __forceinline__ T& shared() {
  __shared__ T storage;
  return storage;
}

#endif

// Blocks for `items` pieces of work of which a block takes `per_block` at a time: enough to fill the chip several times over,
// and kernels stride over the rest. 32 blocks a multiprocessor leave no tail worth speaking of.
inline int64_t grid_for(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block, most = int64_t{32} * multiprocessors();
  return blocks < most ? blocks : most;
}

// ---- in a kernel -----------------------------------------------------------------------------------------------------

__device__ __forceinline__ int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t global_threads() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

RS_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Hands out parts of a workspace, 256 bytes aligned. From null it only counts.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    char* here = base_ ? base_ + used_ : nullptr;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return reinterpret_cast<T*>(here);
  }
  int64_t bytes() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace recsparse::cuda
