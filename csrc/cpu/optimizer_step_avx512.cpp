#include "cpu/isa_avx512.h"
//
#include "cpu/optimizer_step_kernel.h"

namespace recsparse::avx512 {

extern const OptimizerStepKernel optimizer_step_kernel = {optimizer_full, optimizer_lazy};

}  // namespace recsparse::avx512
