#include "cpu/isa_avx512.h"
//
#include "cpu/bpr_step_kernel.h"

namespace recsparse::avx512 {

extern const BprKernel bpr_kernel = {bpr_score, bpr_update};

}  // namespace recsparse::avx512
