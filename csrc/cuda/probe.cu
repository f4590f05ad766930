#include "cuda/launch.h"
#include "cuda/probe.h"

namespace recsparse::cuda {
namespace {

constexpr int kUnroll = 4;  // independent 16-byte loads in flight per thread before the first store

// Grid: grid_for(count) blocks of 256 threads, one float a thread and stride. Bytes moved: 4 * count written.
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
void launch_gather(const ProbeGather& args, void* stream) {
  launch("probe_gather", gather_kernel<kLanes>, grid_for(args.count * kLanes, kUnroll * kThreads), kThreads, stream,
         reinterpret_cast<const uint4*>(args.table), args.ids, reinterpret_cast<uint4*>(args.out), args.count);
}

}  // namespace

const char* probe_fill(float* out, int64_t count, float value, void* stream) {
  launch("probe_fill", fill_kernel, grid_for(count, kThreads), kThreads, stream, out, count, value);
  return launch_error();
}

const char* probe_copy(void* out, const void* in, int64_t bytes, void* stream) {
  const int64_t vectors = bytes / 16;
  launch("probe_copy", copy_kernel, grid_for(vectors, kUnroll * kThreads), kThreads, stream, static_cast<uint4*>(out),
         static_cast<const uint4*>(in), vectors);
  return launch_error();
}

const char* probe_gather(const ProbeGather& args, void* stream) {
  switch (args.row_bytes) {
    case 64: launch_gather<4>(args, stream); break;
    case 128: launch_gather<8>(args, stream); break;
    case 256: launch_gather<16>(args, stream); break;
    default: return "rows of 64, 128 or 256 bytes are expected";
  }
  return launch_error();
}

}  // namespace recsparse::cuda
