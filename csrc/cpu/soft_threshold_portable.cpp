#include "cpu/isa_portable.h"
//
#include "cpu/soft_threshold_kernel.h"

namespace recsparse::portable {

extern const SoftThresholdKernel soft_threshold_kernel = {soft_threshold_forward, soft_threshold_backward};

}  // namespace recsparse::portable
