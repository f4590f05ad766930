#include "cpu/isa_portable.h"
//
#include "cpu/lookup_bag_kernel.h"

namespace recsparse::portable {

extern const LookupBagKernel<float> lookup_bag_kernel = {lookup_bag_forward<float>, lookup_bag_backward_kind<float>,
                                                         lookup_bag_weights_backward_kind<float>};
extern const LookupBagKernel<Half> lookup_bag_kernel_f16 = {lookup_bag_forward<Half>, lookup_bag_backward_kind<Half>,
                                                            lookup_bag_weights_backward_kind<Half>};
extern const LookupBagKernel<BFloat16> lookup_bag_kernel_bf16 = {
    lookup_bag_forward<BFloat16>, lookup_bag_backward_kind<BFloat16>, lookup_bag_weights_backward_kind<BFloat16>};
extern const LookupBagKernel<double> lookup_bag_kernel_f64 = {
    lookup_bag_forward<double>, lookup_bag_backward_kind<double>, lookup_bag_weights_backward_kind<double>};

}  // namespace recsparse::portable
