#include "cpu/isa_avx512.h"
//
#include "cpu/bpr_grow_scores_kernel.h"

namespace recsparse::avx512 {

extern const BprGrowKernel bpr_grow_kernel = {grow_coefficients, grow_row};

}  // namespace recsparse::avx512
