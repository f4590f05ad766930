#include "cpu/isa_avx2.h"
//
#include "cpu/lookup_kernel.h"

namespace recsparse::avx2 {

extern const LookupKernel<float> lookup_kernel = {lookup_forward<float>, lookup_backward_kind<float>};
extern const LookupKernel<Half> lookup_kernel_f16 = {lookup_forward<Half>, lookup_backward_kind<Half>};
extern const LookupKernel<BFloat16> lookup_kernel_bf16 = {lookup_forward<BFloat16>, lookup_backward_kind<BFloat16>};

}  // namespace recsparse::avx2
