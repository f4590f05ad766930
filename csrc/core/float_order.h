// Unsigned integers that order floats, so that a selection can be exact: it compares bits, never rounds.
#pragma once

#include <cstdint>

#include "macros.h"

namespace recsparse {

constexpr uint32_t kMagnitudeMask = 0x7fffffffu;  // bits & this: order of |x|, the same for +0 and -0
constexpr uint32_t kInfinityKey = 0x7f800000u;    // larger magnitudes are NaN

RS_INLINE uint32_t float_bits(float x) {
  union {
    float value;
    uint32_t bits;
  } u;
  u.value = x;
  return u.bits;
}

RS_INLINE float bits_float(uint32_t bits) {
  union {
    uint32_t bits;
    float value;
  } u;
  u.bits = bits;
  return u.value;
}

RS_INLINE uint32_t magnitude_key(float x) { return float_bits(x) & kMagnitudeMask; }

// Order of signed values; -0 and +0 are equal. Below UINT32_MAX for every number and infinity.
RS_INLINE uint32_t ordered_key(float x) {
  const uint32_t bits = x == 0.0f ? 0u : float_bits(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

}  // namespace recsparse
