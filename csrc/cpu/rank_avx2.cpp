#include "cpu/isa_avx2.h"
//
#include "cpu/rank_float32.h"

namespace recsparse::avx2 {

// 12 sums, 2 registers of items and one of a user, of 16. A product of int8 takes three instructions here and wins nothing.
extern const RankKernel rank_kernel = {rank_screen_kernel<RankFloat32<6, 1>>(), {}, rank_read_rows};

}  // namespace recsparse::avx2
