// Sixteen values in a plain array: any CPU, any compiler. Also the only variant for double (gradient checks).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/rows.h"

#define RS_ISA portable

namespace recsparse::portable {

template <class T>
struct V16 {
  T r[16];
  V16() = default;
  RS_INLINE_MEMBER explicit V16(T x) {
    for (int i = 0; i < 16; ++i) r[i] = x;
  }
};
using F16 = V16<float>;

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

template <class T>
RS_INLINE V16<T> load(const T* p) {
  RS_LANEWISE(p[i]);
}
template <class T>
RS_INLINE V16<T> load(const T* p, uint32_t lanes) {
  V16<T> out(T(0));
  for (int i = 0; i < 16; ++i) {
    if (lanes >> i & 1) out.r[i] = p[i];
  }
  return out;
}
template <class T>
RS_INLINE void store(T* p, V16<T> a) {
  for (int i = 0; i < 16; ++i) p[i] = a.r[i];
}
template <class T>
RS_INLINE void store(T* p, V16<T> a, uint32_t lanes) {
  for (int i = 0; i < 16; ++i) {
    if (lanes >> i & 1) p[i] = a.r[i];
  }
}
template <class T>
RS_INLINE void stream(T* p, V16<T> a) {
  store(p, a);
}
RS_INLINE void stream_fence() {}

template <class T>
RS_INLINE V16<T> load_first(const T* p, int n) {
  V16<T> out(T(0));
  for (int i = 0; i < n; ++i) out.r[i] = p[i];
  return out;
}
template <class T>
RS_INLINE void store_first(T* p, V16<T> a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.r[i];
}
template <class T>
RS_INLINE V16<T> shift_down(V16<T> a, int n) {
  V16<T> out(T(0));
  for (int i = 0; i + n < 16; ++i) out.r[i] = a.r[i + n];
  return out;
}
template <class T>
RS_INLINE V16<T> expand(const T* p, uint32_t mask) {
  V16<T> out(T(0));
  for (; mask; mask &= mask - 1) out.r[__builtin_ctz(mask)] = *p++;
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
