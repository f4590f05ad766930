#include "cpu/isa_portable.h"
//
#include "cpu/optimizer_step_kernel.h"

namespace recsparse::portable {

extern const OptimizerStepKernel optimizer_step_kernel = {optimizer_full, optimizer_lazy};

}  // namespace recsparse::portable
