#include "cpu/isa_avx512.h"
//
#include "cpu/soft_threshold_kernel.h"

namespace recsparse::avx512 {

extern const SoftThresholdKernel soft_threshold_kernel = {soft_threshold_forward, soft_threshold_backward};

}  // namespace recsparse::avx512
