// What the CUDA bindings share: the device and stream of a call, workspaces, launch errors, and mistakes that kernels found.
//
// The tests of a machine without a GPU compile the same bindings and kernels for the emulator (tests/cuda_emulator): there
// they serve CPU tensors, in place of the CPU kernels.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>

#include "cuda/errors.h"
#include "torch/check.h"

#if defined(RECSPARSE_CUDA_EMULATOR)
#define RECSPARSE_CUDA_KEY CPU
#else
#define RECSPARSE_CUDA_KEY CUDA
#include "torch/stream.h"
#endif

namespace recsparse {

// The device's record of mistakes, made on first use. See `check_device_errors`.
cuda::ErrorRecord* error_record(c10::Device device);

// Raises, or warns of, the earliest mistake that kernels have noted on the device since the last call. Waits for the device.
void check_device_errors(c10::Device device);

class CudaCall {
 public:
  CudaCall(const char* op, const at::Tensor& like) : op_(op), device_(like.device()), guard_(device_) {}

  c10::Device device() const { return device_; }

#if defined(RECSPARSE_CUDA_EMULATOR)
  void* stream() const { return nullptr; }
  // The emulator has run everything by now: it is as good a time as any.
  void finish() const { check_device_errors(device_); }
#else
  void* stream() const { return current_stream(device_); }
  void finish() const {}
#endif

  void check(const char* error) const { TORCH_CHECK(error == nullptr, op_, ": CUDA: ", error); }

  at::Tensor workspace(int64_t bytes) const {
    return at::empty({bytes}, at::TensorOptions().dtype(at::kByte).device(device_));
  }

  cuda::ErrorSite site(cuda::Fault fault, int64_t limit, int64_t total, int64_t bounds) const {
    if (bounds == 2) return cuda::ErrorSite{};
    return cuda::ErrorSite{error_record(device_), fault, static_cast<uint32_t>(bounds), next_call(), limit, total};
  }

 private:
  static uint64_t next_call();

  const char* op_;
  c10::Device device_;
  c10::DeviceGuard guard_;
};

}  // namespace recsparse
