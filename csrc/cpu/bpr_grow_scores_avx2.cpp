#include "cpu/isa_avx2.h"
//
#include "cpu/bpr_grow_scores_kernel.h"

namespace recsparse::avx2 {

extern const BprGrowKernel bpr_grow_kernels[kValueTypes] = {
    {grow_coefficients<float>, grow_row<float>},
    {grow_coefficients<Half>, grow_row<Half>},
    {grow_coefficients<BFloat16>, grow_row<BFloat16>},
};

}  // namespace recsparse::avx2
