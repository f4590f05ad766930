// CUB's kernels choose their own launch geometry. Bytes moved: sort, about 16 a key and 8-bit digit; scan, 16 a word.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "cuda/sort.h"

namespace recsparse::cuda {
namespace {

const char* message(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

}  // namespace

int64_t sort_workspace_bytes(int64_t count) {
  size_t bytes = 0;
  cub::DeviceRadixSort::SortKeys(nullptr, bytes, static_cast<const uint64_t*>(nullptr), static_cast<uint64_t*>(nullptr),
                                 count);
  return static_cast<int64_t>(bytes);
}

const char* sort_keys(const SortArgs& args, void* stream) {
  size_t bytes = static_cast<size_t>(sort_workspace_bytes(args.count));
  return message(cub::DeviceRadixSort::SortKeys(args.workspace, bytes, args.keys, args.sorted, args.count,
                                                args.begin_bit, args.end_bit, static_cast<cudaStream_t>(stream)));
}

int64_t scan_workspace_bytes(int64_t count) {
  size_t bytes = 0;
  cub::DeviceScan::ExclusiveSum(nullptr, bytes, static_cast<const uint64_t*>(nullptr), static_cast<uint64_t*>(nullptr),
                                count);
  return static_cast<int64_t>(bytes);
}

const char* exclusive_scan(const ScanArgs& args, void* stream) {
  size_t bytes = static_cast<size_t>(scan_workspace_bytes(args.count));
  return message(cub::DeviceScan::ExclusiveSum(args.workspace, bytes, args.in, args.out, args.count,
                                               static_cast<cudaStream_t>(stream)));
}

}  // namespace recsparse::cuda
