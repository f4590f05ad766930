#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>

#include "torch/bounds.h"
#include "torch/cuda_call.h"

namespace recsparse {
namespace {

struct FaultName {
  const char *op, *argument;
};
// In the order of cuda::Fault.
constexpr FaultName kFaults[] = {
    {"", ""},
    {"lookup", "ids"},
    {"lookup_bag", "ids"},
    {"lookup_bag", "offsets"},
    {"bpr_step_", "users"},
    {"bpr_step_", "pos"},
    {"bpr_step_", "neg"},
    {"bpr_grow_scores", "users"},
    {"bpr_grow_scores", "pos"},
    {"bpr_grow_scores", "neg"},
    {"adam_", "ids"},
    {"adagrad_", "ids"},
    {"rowwise_adagrad_", "ids"},
    {"sgd_", "ids"},
    {"select", "values"},
    {"sample", "row"},
    {"rank", "users"},
    {"rank", "indptr"},
    {"rank", "item"},
    {"rank", "user"},
    {"lightgcn_step_", "users"},
    {"lightgcn_step_", "pos"},
    {"lightgcn_step_", "neg"},
    {"lightgcn_grow_scores", "users"},
    {"lightgcn_grow_scores", "pos"},
    {"lightgcn_grow_scores", "neg"},
    {"soft_threshold", "ids"},
    {"soft_threshold_backward", "ids"},
};

// Never freed: the allocator may be gone when static objects are destroyed.
at::Tensor& record_tensor(c10::Device device) {
  static std::mutex mutex;
  static auto* records = new std::map<int, at::Tensor>();
  const std::lock_guard<std::mutex> lock(mutex);
  at::Tensor& record = (*records)[device.index()];
  if (!record.defined()) {
    const auto options = at::TensorOptions().dtype(at::kByte).device(device);
    record = at::zeros({static_cast<int64_t>(sizeof(cuda::ErrorRecord))}, options);
  }
  return record;
}

void raise_device_errors(const at::Tensor& like) { check_device_errors(like.device()); }

}  // namespace

cuda::ErrorRecord* error_record(c10::Device device) {
  return static_cast<cuda::ErrorRecord*>(record_tensor(device).mutable_data_ptr());
}

uint64_t CudaCall::next_call() {
  static std::atomic<uint64_t> calls{0};
  return calls++;
}

void check_device_errors(c10::Device device) {
  at::Tensor& tensor = record_tensor(device);
  const at::Tensor copy = tensor.cpu();
  cuda::ErrorRecord record;
  std::memcpy(&record, copy.const_data_ptr(), sizeof(record));
  if (record.count == 0) return;
  tensor.zero_();
  const FaultName name = kFaults[record.fault];
  const uint64_t position = ~record.order & ((1ull << 40) - 1);
  switch (static_cast<cuda::Fault>(record.fault)) {
    case cuda::Fault::select_nan:
      TORCH_CHECK_VALUE(false, "select: ", record.count, " of ", record.total,
                        " values are NaN, the first at position ", position, "; expected numbers");
    case cuda::Fault::lookup_bag_offsets:
      TORCH_CHECK_VALUE(false, "lookup_bag: offsets[", position, "] = ", record.id,
                        ", expected ascending offsets from 0 to ", record.limit - 1, ", the number of ids");
    case cuda::Fault::sample_row:
      TORCH_CHECK_VALUE(false, "row ", record.id, ": expected 1 .. n_items - 1 positives inside items");
    case cuda::Fault::rank_indptr:
      TORCH_CHECK_VALUE(false, "rank: indptr must ascend within 0..", record.limit, ", the length of seen");
    case cuda::Fault::rank_item_row:
    case cuda::Fault::rank_user_row:
      TORCH_CHECK_VALUE(false, "rank: ", name.argument, " row ", record.id,
                        " holds NaN, infinity or numbers too large to multiply; expected norms up to 1e18");
    default: break;
  }
  // The ops that may be told to go on say how many ids they went on with.
  const bool counted = record.fault <= static_cast<uint32_t>(cuda::Fault::lookup_bag_ids);
  TORCH_CHECK_INDEX(record.bounds != fatal || !counted, name.op, ": ", name.argument, "[", position, "] = ", record.id,
                    " is out of range, expected 0..", record.limit - 1, " (", record.count, " of ", record.total,
                    " ids are)");
  TORCH_CHECK_INDEX(record.bounds != fatal, name.op, ": ", name.argument, "[", position, "] = ", record.id,
                    " is out of range, expected 0..", record.limit - 1);
  TORCH_WARN(name.op, ": ", record.count, " of ", record.total, " ids are out of range 0..", record.limit - 1,
             ", first ids[", position, "] = ", record.id, "; row 0 was read instead");
}

TORCH_LIBRARY_IMPL(recsparse, RECSPARSE_CUDA_KEY, m) { m.impl("raise_device_errors", raise_device_errors); }

}  // namespace recsparse
