// torch's current stream as a raw handle, without a CUDA header: the same source builds beside a CPU wheel of torch.
#pragma once

#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace recsparse {

// The cudaStream_t (or its like) on which work for `device` must be enqueued. A launcher also needs a c10::DeviceGuard
// on `device`: a CUDA launch goes to the current device.
inline void* current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
}

}  // namespace recsparse
