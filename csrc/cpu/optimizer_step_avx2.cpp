#include "cpu/isa_avx2.h"
//
#include "cpu/optimizer_step_kernel.h"

namespace recsparse::avx2 {

extern const OptimizerStepKernel optimizer_step_kernel = {optimizer_full, optimizer_lazy};

}  // namespace recsparse::avx2
