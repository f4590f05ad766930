#include "cpu/isa_portable.h"
//
#include "cpu/spmm_kernel.h"

namespace recsparse::portable {

extern const SpmmKernel spmm_kernel = {
    {spmm_rows<float, int32_t>, spmm_segment<float, int32_t>, spmm_join<float, int32_t>},
    {spmm_rows<float, int64_t>, spmm_segment<float, int64_t>, spmm_join<float, int64_t>},
    {spmm_rows<Half, int32_t>, spmm_segment<Half, int32_t>, spmm_join<Half, int32_t>},
    {spmm_rows<Half, int64_t>, spmm_segment<Half, int64_t>, spmm_join<Half, int64_t>},
    {spmm_rows<BFloat16, int32_t>, spmm_segment<BFloat16, int32_t>, spmm_join<BFloat16, int32_t>},
    {spmm_rows<BFloat16, int64_t>, spmm_segment<BFloat16, int64_t>, spmm_join<BFloat16, int64_t>},
};

}  // namespace recsparse::portable
