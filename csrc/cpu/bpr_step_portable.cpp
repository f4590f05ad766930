#include "cpu/isa_portable.h"
//
#include "cpu/bpr_step_kernel.h"

namespace recsparse::portable {

extern const BprKernel bpr_kernel = {bpr_score, bpr_update};

}  // namespace recsparse::portable
