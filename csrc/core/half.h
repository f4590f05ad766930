// Sixteen-bit storage of weights: IEEE binary16 and bfloat16. Arithmetic is in float: a value is widened exactly when it
// is read, and rounded when it is written, to nearest (ties to even) or stochastically.
//
// Stochastic rounding takes |x| up to the next representable magnitude with the probability (x's distance from the lower
// one) / (distance of the two), by adding uniform random bits below the last bit that is kept and truncating. A weight
// that moves by less than half a step of its type would otherwise never move at all. What is representable stays as it
// is, a finite number stays finite (it is clamped to the largest), NaN and infinity stay.
#pragma once

#include <cstdint>

#include "float_order.h"
#include "macros.h"

namespace recsparse {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// In the order of the kernels' tables.
enum class ValueType : int32_t { float32 = 0, float16 = 1, bfloat16 = 2 };
constexpr int kValueTypes = 3;

RS_INLINE constexpr int value_bytes(ValueType type) { return type == ValueType::float32 ? 4 : 2; }

// Without their sign bit the bits of a value order magnitudes; larger ones than those of infinity are NaN.
RS_INLINE constexpr uint32_t infinity_key(ValueType type) {
  return type == ValueType::float16 ? 0x7c00u : type == ValueType::bfloat16 ? 0x7f80u : kInfinityKey;
}
constexpr uint32_t kMagnitudeMask16 = 0x7fffu;

// What a kernel computes in when values are stored as T.
template <class T>
struct Arithmetic {
  using type = float;
};
template <>
struct Arithmetic<double> {
  using type = double;
};
template <class T>
using ArithmeticType = typename Arithmetic<T>::type;

RS_INLINE float widen(float x) { return x; }
RS_INLINE double widen(double x) { return x; }
RS_INLINE float widen(BFloat16 x) { return bits_float(static_cast<uint32_t>(x.bits) << 16); }
RS_INLINE float widen(Half x) {
  constexpr uint32_t kRebias = 112u << 23, kExponent = 0x1fu << 23;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t body = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  uint32_t out = body + kRebias;
  if ((body & kExponent) == kExponent) {
    out += kRebias;
    if (out > kInfinityKey) out |= 0x00400000u;  // quiet, as the processor's conversion does
  } else if ((body & kExponent) == 0) {
    out = float_bits(bits_float(out + (1u << 23)) - bits_float(113u << 23));
  }
  return bits_float(out | sign);
}

// The nearest T, ties to even. The first argument only says which T.
RS_INLINE float narrow(float, float x) { return x; }
RS_INLINE double narrow(double, double x) { return x; }
RS_INLINE BFloat16 narrow(BFloat16, float x) {
  const uint32_t bits = float_bits(x);
  if ((bits & kMagnitudeMask) > kInfinityKey) return BFloat16{static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return BFloat16{static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
RS_INLINE Half narrow(Half, float x) {
  constexpr uint32_t kOverflow = 143u << 23, kSmallest = 113u << 23, kMagic = 126u << 23;
  const uint32_t bits = float_bits(x), sign = bits >> 16 & 0x8000u;
  uint32_t body = bits & kMagnitudeMask;
  if (body > kInfinityKey) {
    body = 0x7e00u | (body >> 13 & 0x3ffu);
  } else if (body >= kOverflow) {
    body = 0x7c00u;
  } else if (body < kSmallest) {
    body = float_bits(bits_float(body) + bits_float(kMagic)) - kMagic;  // the addition rounds to multiples of 2^-24
  } else {
    body = (body + (static_cast<uint32_t>(15 - 127) << 23) + 0xfffu + (body >> 13 & 1u)) >> 13;
  }
  return Half{static_cast<uint16_t>(body | sign)};
}

constexpr uint32_t kLargestBFloat16 = 0x7f7f0000u;  // bits of the float
constexpr uint32_t kLargestHalf = 0x477fe000u;      // 65504
constexpr uint32_t kSmallestNormalHalf = 0x38800000u;

// x rounded to a T with 32 uniform random bits, as a float. Exactly unbiased, but for halves below 2^-14: their steps
// are divided into 2^21 parts, and what is smaller than a part is cut off first.
RS_INLINE float round_stochastic(float, float x, uint32_t) { return x; }
RS_INLINE float round_stochastic(BFloat16, float x, uint32_t random) {
  const uint32_t bits = float_bits(x), sign = bits & ~kMagnitudeMask;
  uint32_t magnitude = bits & kMagnitudeMask;
  if (magnitude >= kInfinityKey) return x;
  magnitude = magnitude < kLargestBFloat16 ? magnitude : kLargestBFloat16;
  return bits_float(((magnitude + (random & 0xffffu)) & 0xffff0000u) | sign);
}
RS_INLINE float round_stochastic(Half, float x, uint32_t random) {
  const uint32_t bits = float_bits(x), sign = bits & ~kMagnitudeMask;
  uint32_t magnitude = bits & kMagnitudeMask;
  if (magnitude >= kInfinityKey) return x;
  magnitude = magnitude < kLargestHalf ? magnitude : kLargestHalf;
  if (magnitude < kSmallestNormalHalf) {
    const uint32_t parts = static_cast<uint32_t>(bits_float(magnitude) * 0x1p45f);
    magnitude = float_bits(static_cast<float>((parts + (random & 0x1fffffu)) >> 21) * 0x1p-24f);
  } else {
    magnitude = (magnitude + (random & 0x1fffu)) & ~0x1fffu;
  }
  return bits_float(magnitude | sign);
}

}  // namespace recsparse
