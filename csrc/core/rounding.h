// Random bits for stochastic rounding (core/half.h): a pure function of (seed, step, row, position), where position k is
// the k-th kept weight of the row. The same for any number of threads, any instruction set and any index kind.
//
// One Philox block a step, shared by the whole table; a row then costs two mixes of a 32-bit word and a weight one. A
// block for every row would cost more than the rounding itself. Different weights may see the same bits, as in any 32-bit
// stream; one weight sees fresh ones at every step.
#pragma once

#include "philox.h"

namespace recsparse {

struct RoundingStep {
  uint32_t low, high;
};

// `step` counts the updates of the table from 1.
RS_INLINE RoundingStep rounding_step(uint64_t seed, int64_t step) {
  const Philox4 random = philox(seed, static_cast<uint64_t>(step), 0, kStreamRounding);
  return RoundingStep{random.w[0], random.w[1]};
}

// Of one row in one step.
struct RoundingKey {
  uint32_t bits;
};

RS_INLINE RoundingKey rounding_key(RoundingStep step, int64_t row) {
  const uint64_t id = static_cast<uint64_t>(row);
  return RoundingKey{mix32(mix32(static_cast<uint32_t>(id) ^ step.low) ^ static_cast<uint32_t>(id >> 32) ^ step.high)};
}

constexpr uint32_t kRoundingStride = 0x9E3779B9u;

RS_INLINE uint32_t rounding_bits(RoundingKey key, uint32_t position) {
  return mix32(key.bits + position * kRoundingStride);
}

}  // namespace recsparse
