#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/probe.h"

namespace recsparse::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // independent 16-byte loads in flight per thread before the first store

// Enough blocks to fill every multiprocessor; the kernels stride over the rest.
int grid_size(int64_t threads_of_work) {
  int device = 0, multiprocessors = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  const int64_t blocks = (threads_of_work + kThreads - 1) / kThreads;
  return static_cast<int>(std::min<int64_t>(blocks, int64_t{32} * multiprocessors));
}

const char* launch_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Grid: grid_size(count) blocks of 256 threads, one float a thread and stride. Bytes moved: 4 * count written.
__global__ void __launch_bounds__(kThreads) fill_kernel(float* out, int64_t count, float value) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) out[i] = value;
}

// Grid: blocks of 256 threads that walk over tiles of 4 x 256 vectors of 16 bytes; in a tile, thread t moves the vectors
// t, t + 256, t + 512 and t + 768, so each warp access is 512 contiguous bytes. Bytes moved: 16 * vectors read and
// as many written.
__global__ void __launch_bounds__(kThreads)
    copy_kernel(uint4* __restrict__ out, const uint4* __restrict__ in, int64_t vectors) {
  constexpr int64_t kTile = int64_t{kThreads} * kUnroll;
  for (int64_t tile = blockIdx.x * kTile; tile < vectors; tile += gridDim.x * kTile) {
    uint4 held[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t i = tile + u * kThreads + threadIdx.x;
      if (i < vectors) held[u] = in[i];
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t i = tile + u * kThreads + threadIdx.x;
      if (i < vectors) out[i] = held[u];
    }
  }
}

// Grid: blocks of 256 threads; kLanes neighbouring threads move one row, 16 bytes each, and every thread has four rows
// in flight. Bytes moved: count * (8 id + 16 * kLanes read + 16 * kLanes written).
template <int kLanes>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const uint4* __restrict__ table, const int64_t* __restrict__ ids, uint4* __restrict__ out,
                  int64_t count) {
  constexpr int kRows = kThreads / kLanes;
  constexpr int64_t kTile = int64_t{kRows} * kUnroll;
  const int lane = threadIdx.x % kLanes;
  const int row = threadIdx.x / kLanes;
  for (int64_t tile = blockIdx.x * kTile; tile < count; tile += gridDim.x * kTile) {
    uint4 held[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t i = tile + u * kRows + row;
      if (i < count) held[u] = table[ids[i] * kLanes + lane];
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t i = tile + u * kRows + row;
      if (i < count) out[i * kLanes + lane] = held[u];
    }
  }
}

template <int kLanes>
void launch_gather(const ProbeGather& args, cudaStream_t stream) {
  const int blocks = grid_size((args.count * kLanes + kUnroll - 1) / kUnroll);
  gather_kernel<kLanes><<<blocks, kThreads, 0, stream>>>(reinterpret_cast<const uint4*>(args.table), args.ids,
                                                         reinterpret_cast<uint4*>(args.out), args.count);
}

}  // namespace

const char* probe_fill(float* out, int64_t count, float value, void* stream) {
  if (count == 0) return nullptr;
  fill_kernel<<<grid_size(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(out, count, value);
  return launch_error();
}

const char* probe_copy(void* out, const void* in, int64_t bytes, void* stream) {
  const int64_t vectors = bytes / 16;
  if (vectors == 0) return nullptr;
  const int blocks = grid_size((vectors + kUnroll - 1) / kUnroll);
  copy_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(static_cast<uint4*>(out),
                                                                          static_cast<const uint4*>(in), vectors);
  return launch_error();
}

const char* probe_gather(const ProbeGather& args, void* stream) {
  if (args.count == 0) return nullptr;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  switch (args.row_bytes) {
    case 64: launch_gather<4>(args, cuda_stream); break;
    case 128: launch_gather<8>(args, cuda_stream); break;
    case 256: launch_gather<16>(args, cuda_stream); break;
    default: return "rows of 64, 128 or 256 bytes are expected";
  }
  return launch_error();
}

}  // namespace recsparse::cuda
