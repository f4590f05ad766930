#include "cpu/isa_avx512.h"
//
#include "cpu/rank_float32.h"
#include "cpu/rank_int8_avx512.h"

namespace recsparse::avx512 {

// 24 sums, 3 vectors of items and one of a user: 28 of 32 registers, and 24 products for 11 loads.
extern const RankKernel rank_kernel = {rank_screen_kernel<RankFloat32<8, 3>>(), rank_screen_kernel<RankInt8>(),
                                       rank_read_rows};

}  // namespace recsparse::avx512
