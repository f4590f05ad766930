#include "cpu/isa_portable.h"
//
#include "cpu/lookup_kernel.h"

namespace recsparse::portable {

extern const LookupKernel<float> lookup_kernel = {lookup_forward<float>, lookup_backward_kind<float>};
extern const LookupKernel<double> lookup_kernel_f64 = {lookup_forward<double>, lookup_backward_kind<double>};

}  // namespace recsparse::portable
