#include "cpu/isa_portable.h"
//
#include "cpu/rank_float32.h"

namespace recsparse::portable {

// Sixteen lanes are four registers of 128 bits: 8 sums, 4 of items and one of a user, of 16.
extern const RankKernel rank_kernel = {rank_screen_kernel<RankFloat32<2, 1>>(), {}, rank_read_rows};

}  // namespace recsparse::portable
