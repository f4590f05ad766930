#include "cpu/isa_avx2.h"
//
#include "cpu/lightgcn_step_kernel.h"

namespace recsparse::avx2 {

extern const LightgcnKernel lightgcn_kernel = {lightgcn_score, lightgcn_row_gradients, lightgcn_hidden<float>(),
                                               lightgcn_hidden<BFloat16>()};

}  // namespace recsparse::avx2
