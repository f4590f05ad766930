// Launchers of the probe kernels: what the GPU gives to the three access patterns that bound every operator. Free of
// torch and of CUDA headers, so that csrc/torch can include it. `stream` is a cudaStream_t on the current device.
// Each returns nullptr, or a message that lives forever.
#pragma once

#include <cstdint>

namespace recsparse::cuda {

struct ProbeGather {
  const uint8_t* table;  // rows of row_bytes, 16-byte aligned
  const int64_t* ids;    // [count], each a row of the table; not checked
  uint8_t* out;          // [count, row_bytes], 16-byte aligned
  int64_t count;
  int64_t row_bytes;  // 64, 128 or 256
};

const char* probe_fill(float* out, int64_t count, float value, void* stream);

// `bytes` is a multiple of 16; both pointers are 16-byte aligned.
const char* probe_copy(void* out, const void* in, int64_t bytes, void* stream);

const char* probe_gather(const ProbeGather& args, void* stream);

}  // namespace recsparse::cuda
