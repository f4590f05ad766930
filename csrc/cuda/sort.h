// Radix sort and scan over 64-bit words; CUB on the device, the standard library in the emulator of the tests.
#pragma once

#include <cstdint>

namespace recsparse::cuda {

struct SortArgs {
  const uint64_t* keys;  // [count]
  uint64_t* sorted;      // [count], another array
  int64_t count;
  int begin_bit, end_bit;  // only these bits are compared; the sort is stable
  void* workspace;
};

int64_t sort_workspace_bytes(int64_t count);
const char* sort_keys(const SortArgs& args, void* stream);

// out[i] = in[0] + .. + in[i - 1]; `out` may be `in`.
struct ScanArgs {
  const uint64_t* in;
  uint64_t* out;
  int64_t count;
  void* workspace;
};

int64_t scan_workspace_bytes(int64_t count);
const char* exclusive_scan(const ScanArgs& args, void* stream);

}  // namespace recsparse::cuda
