// Initial weights and masks as pure functions of (seed, row, column): rewinding a table costs no memory, and every
// backend starts from the same bits. No libm: integers, then one rounding.
#pragma once

#include "philox.h"

namespace recsparse {

// Sum of four 16-bit uniforms, centred: about normal (Irwin-Hall), in [-131070, 131070].
constexpr double kNormalUnit = 37837.22723720648;  // its standard deviation, sqrt(4 * (65536^2 - 1) / 12)

RS_INLINE float init_value(uint64_t seed, int64_t row, int col, float scale) {
  const Philox4 random = philox(seed, static_cast<uint64_t>(row), static_cast<uint32_t>(col >> 1), kStreamInitValue);
  const bool odd = col & 1;  // no index: a GPU would put the four words in memory
  const uint32_t a = odd ? random.w[2] : random.w[0], b = odd ? random.w[3] : random.w[1];
  const int sum = static_cast<int>((a & 0xffff) + (a >> 16) + (b & 0xffff) + (b >> 16)) - 131070;
  return static_cast<float>(sum) * scale;
}

// The slot's 32-bit rank in a random mask: the slots with the smallest ranks are kept.
RS_INLINE void init_mask_ranks(uint64_t seed, int64_t row, int col4, uint32_t rank[4]) {
  const Philox4 random = philox(seed, static_cast<uint64_t>(row), static_cast<uint32_t>(col4), kStreamInitMask);
  for (int i = 0; i < 4; ++i) rank[i] = random.w[i];
}

}  // namespace recsparse
