#include "cpu/isa_portable.h"
//
#include "cpu/lightgcn_step_kernel.h"

namespace recsparse::portable {

extern const LightgcnKernel lightgcn_kernel = {lightgcn_score, lightgcn_row_gradients, lightgcn_hidden<float>(),
                                               lightgcn_hidden<BFloat16>()};

}  // namespace recsparse::portable
