#include "cpu/isa_avx2.h"
//
#include "cpu/bpr_step_kernel.h"

namespace recsparse::avx2 {

extern const BprKernel bpr_kernels[kValueTypes] = {
    {bpr_score<float>, bpr_update<float>},
    {bpr_score<Half>, bpr_update<Half>},
    {bpr_score<BFloat16>, bpr_update<BFloat16>},
};

}  // namespace recsparse::avx2
