#include "cpu/isa_portable.h"
//
#include "cpu/bpr_grow_scores_kernel.h"

namespace recsparse::portable {

extern const BprGrowKernel bpr_grow_kernel = {grow_coefficients, grow_row};

}  // namespace recsparse::portable
