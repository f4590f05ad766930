// Sixteen values in a plain array: any CPU, any compiler. Also the only variant for double (gradient checks). Loads and
// stores take the type that values are stored in, float for sixteen bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/half.h"
#include "core/rounding.h"
#include "core/rows.h"

#define RS_ISA portable

namespace recsparse::portable {

constexpr bool kVectors = false;  // a lane costs what it costs: nothing is gained by taking sixteen at once

template <class T>
struct V16 {
  T r[16];
  V16() = default;
  RS_INLINE_MEMBER explicit V16(T x) {
    for (int i = 0; i < 16; ++i) r[i] = x;
  }
};
using F16 = V16<float>;
template <class S>
using Lanes = V16<ArithmeticType<S>>;

#define RS_LANEWISE(expression)                       \
  V16<T> out;                                         \
  for (int i = 0; i < 16; ++i) out.r[i] = expression; \
  return out

template <class T>
RS_INLINE V16<T> operator+(V16<T> a, V16<T> b) {
  RS_LANEWISE(a.r[i] + b.r[i]);
}
template <class T>
RS_INLINE V16<T> operator-(V16<T> a, V16<T> b) {
  RS_LANEWISE(a.r[i] - b.r[i]);
}
template <class T>
RS_INLINE V16<T> operator*(V16<T> a, V16<T> b) {
  RS_LANEWISE(a.r[i] * b.r[i]);
}
template <class T>
RS_INLINE V16<T> operator/(V16<T> a, V16<T> b) {
  RS_LANEWISE(a.r[i] / b.r[i]);
}
template <class T>
RS_INLINE V16<T> abs(V16<T> a) {
  RS_LANEWISE(a.r[i] < 0 ? -a.r[i] : a.r[i]);
}
template <class T>
RS_INLINE V16<T> max(V16<T> a, V16<T> b) {
  RS_LANEWISE(a.r[i] > b.r[i] ? a.r[i] : b.r[i]);
}
template <class T>
RS_INLINE V16<T> min(V16<T> a, V16<T> b) {
  RS_LANEWISE(a.r[i] < b.r[i] ? a.r[i] : b.r[i]);
}
template <class T>
RS_INLINE V16<T> fma(V16<T> a, V16<T> b, V16<T> c) {
  RS_LANEWISE(a.r[i] * b.r[i] + c.r[i]);
}
template <class T>
RS_INLINE uint32_t greater(V16<T> a, V16<T> b) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; ++i) mask |= static_cast<uint32_t>(a.r[i] > b.r[i]) << i;
  return mask;
}

template <class T>
RS_INLINE V16<T> select(uint32_t mask, V16<T> a, V16<T> b) {
  RS_LANEWISE(mask >> i & 1 ? a.r[i] : b.r[i]);
}

template <class S>
RS_INLINE Lanes<S> load(const S* p) {
  Lanes<S> out;
  for (int i = 0; i < 16; ++i) out.r[i] = widen(p[i]);
  return out;
}
// Calls each(i) for all i in [0, n), n <= 16, for some of them twice: runs of a fixed length, which the compiler makes
// vectors of, and fewer branches than lanes.
template <class Each>
RS_INLINE void first_lanes(int n, Each&& each) {
  const auto ends = [&](auto length) {
    for (int i = 0; i < length; ++i) each(i);
    for (int i = n - length; i < n; ++i) each(i);
  };
  if (n >= 8) {
    ends(std::integral_constant<int, 8>());
  } else if (n >= 4) {
    ends(std::integral_constant<int, 4>());
  } else {  // not a loop: g++ would call memcpy for it
    if (n > 0) each(0);
    if (n > 1) each(1);
    if (n > 2) each(2);
  }
}

template <class S>
RS_INLINE Lanes<S> load_first(const S* p, int n) {
  Lanes<S> out(0);
  first_lanes(n, [&](int i) { out.r[i] = widen(p[i]); });
  return out;
}
template <class S>
RS_INLINE void store_first(S* p, Lanes<S> a, int n) {
  first_lanes(n, [&](int i) { p[i] = narrow(S{}, a.r[i]); });
}
// `lanes` is a run from lane 0.
template <class S>
RS_INLINE Lanes<S> load(const S* p, uint32_t lanes) {
  return load_first(p, __builtin_ctz(~lanes));
}
template <class S>
RS_INLINE void store(S* p, Lanes<S> a) {
  for (int i = 0; i < 16; ++i) p[i] = narrow(S{}, a.r[i]);
}
template <class S>
RS_INLINE void store(S* p, Lanes<S> a, uint32_t lanes) {
  store_first(p, a, __builtin_ctz(~lanes));
}
template <class S>
RS_INLINE void stream(S* p, Lanes<S> a) {
  store(p, a);
}
RS_INLINE void stream_fence() {}

// Lane i of a rounded to an S stochastically, for the weight at `position` + i of a row; see core/half.h.
template <class S>
RS_INLINE F16 round_stochastic(S, F16 a, RoundingKey key, uint32_t position) {
  F16 out;
  for (uint32_t i = 0; i < 16; ++i) {
    out.r[i] = recsparse::round_stochastic(S{}, a.r[i], rounding_bits(key, position + i));
  }
  return out;
}
RS_INLINE F16 round_stochastic(float, F16 a, RoundingKey, uint32_t) { return a; }

template <class S>
RS_INLINE Lanes<S> expand(const S* p, uint32_t mask) {
  Lanes<S> out(0);
  for (; mask; mask &= mask - 1) out.r[__builtin_ctz(mask)] = widen(*p++);
  return out;
}
template <class T>
RS_INLINE V16<T> expand(V16<T> a, uint32_t mask) {
  return expand(a.r, mask);
}
template <class T>
RS_INLINE V16<T> compress(V16<T> a, uint32_t mask) {
  V16<T> out(T(0));
  T* p = out.r;
  for (; mask; mask &= mask - 1) *p++ = a.r[__builtin_ctz(mask)];
  return out;
}

// Halving, as the vector variants do it: the same order of additions.
template <class T>
RS_INLINE T reduce_add(V16<T> a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.r[i] += a.r[i + half];
  }
  return a.r[0];
}

// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer (|a| < 2^22).
RS_INLINE F16 round(F16 a) {
  F16 out;
  for (int i = 0; i < 16; ++i) out.r[i] = (a.r[i] + 12582912.0f) - 12582912.0f;
  return out;
}
RS_INLINE F16 exp2_integer(F16 n) {
  F16 out;
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n.r[i]) + 127) << 23;
    std::memcpy(&out.r[i], &bits, 4);
  }
  return out;
}

// Sixteen pairs in memory order, and their first and second elements.
struct Pairs {
  F16 a, b;
};
RS_INLINE Pairs split_pairs(Pairs x) {
  Pairs out;
  for (int i = 0; i < 8; ++i) {
    out.a.r[i] = x.a.r[2 * i], out.b.r[i] = x.a.r[2 * i + 1];
    out.a.r[8 + i] = x.b.r[2 * i], out.b.r[8 + i] = x.b.r[2 * i + 1];
  }
  return out;
}
RS_INLINE Pairs join_pairs(Pairs x) {
  Pairs out;
  for (int i = 0; i < 8; ++i) {
    out.a.r[2 * i] = x.a.r[i], out.a.r[2 * i + 1] = x.b.r[i];
    out.b.r[2 * i] = x.a.r[8 + i], out.b.r[2 * i + 1] = x.b.r[8 + i];
  }
  return out;
}

RS_INLINE F16 divide_by_root(F16 m, F16 v, F16 eps) {
  F16 out;
  for (int i = 0; i < 16; ++i) out.r[i] = m.r[i] / (__builtin_sqrtf(v.r[i]) + eps.r[i]);
  return out;
}

using Rank = ScalarRank;

// See isa_avx512.h: two short rows through each other's mask. The common columns are few, so they are walked one by one.
struct Overlap {
  F16 b_at_a, a_at_b;
};
template <int N>
RS_INLINE Overlap overlap(F16 a, const uint64_t* mask_a, F16 b, const uint64_t* mask_b) {
  Overlap out{F16(0.0f), F16(0.0f)};
  int before_a = 0, before_b = 0;
  for (int i = 0; i < N; ++i) {
    for (uint64_t common = mask_a[i] & mask_b[i]; common; common &= common - 1) {
      const uint64_t below = (common & -common) - 1;
      const int at_a = before_a + popcount64(mask_a[i] & below), at_b = before_b + popcount64(mask_b[i] & below);
      out.b_at_a.r[at_a] = b.r[at_b];
      out.a_at_b.r[at_b] = a.r[at_a];
    }
    before_a += popcount64(mask_a[i]);
    before_b += popcount64(mask_b[i]);
  }
  return out;
}

#undef RS_LANEWISE

}  // namespace recsparse::portable
