#include "cpu/isa_avx512.h"
//
#include "cpu/lookup_kernel.h"

namespace recsparse::avx512 {

extern const LookupKernel<float> lookup_kernel = {lookup_forward<float>, lookup_backward_kind<float>};

}  // namespace recsparse::avx512
