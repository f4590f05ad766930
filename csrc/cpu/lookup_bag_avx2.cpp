#include "cpu/isa_avx2.h"
//
#include "cpu/lookup_bag_kernel.h"

namespace recsparse::avx2 {

extern const LookupBagKernel<float> lookup_bag_kernel = {lookup_bag_forward<float>, lookup_bag_backward_kind<float>,
                                                         lookup_bag_weights_backward_kind<float>};
extern const LookupBagKernel<Half> lookup_bag_kernel_f16 = {lookup_bag_forward<Half>, lookup_bag_backward_kind<Half>,
                                                            lookup_bag_weights_backward_kind<Half>};
extern const LookupBagKernel<BFloat16> lookup_bag_kernel_bf16 = {
    lookup_bag_forward<BFloat16>, lookup_bag_backward_kind<BFloat16>, lookup_bag_weights_backward_kind<BFloat16>};

}  // namespace recsparse::avx2
