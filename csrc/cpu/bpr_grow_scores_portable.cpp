#include "cpu/isa_portable.h"
//
#include "cpu/bpr_grow_scores_kernel.h"

namespace recsparse::portable {

extern const BprGrowKernel bpr_grow_kernels[kValueTypes] = {
    {grow_coefficients<float>, grow_row<float>},
    {grow_coefficients<Half>, grow_row<Half>},
    {grow_coefficients<BFloat16>, grow_row<BFloat16>},
};

}  // namespace recsparse::portable
