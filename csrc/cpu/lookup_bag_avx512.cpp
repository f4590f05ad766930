#include "cpu/isa_avx512.h"
//
#include "cpu/lookup_bag_kernel.h"

namespace recsparse::avx512 {

extern const LookupBagKernel<float> lookup_bag_kernel = {lookup_bag_forward<float>, lookup_bag_backward_kind<float>,
                                                         lookup_bag_weights_backward_kind<float>};

}  // namespace recsparse::avx512
