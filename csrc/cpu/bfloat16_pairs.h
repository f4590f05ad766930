// bfloat16 columns two by two: a 32-bit lane holds an even column in its low half and the next one in its high half, and
// both become floats by one operation each, where one column a lane takes a permutation and a shift. What is summed up
// that way lies apart, even columns in one register and odd ones in another, until it is put together at the end. Include
// after an isa_*.h.
#pragma once

#include <type_traits>

#include "core/half.h"

namespace recsparse::RS_ISA {

struct ColumnPair {
  F16 even, odd;
};

#if defined(__AVX512F__)
template <class T>
constexpr bool kColumnPairs = std::is_same_v<T, BFloat16>;

RS_INLINE ColumnPair load_pairs(const BFloat16* p) {
  const __m512i words = _mm512_loadu_si512(p);
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return {F16(_mm512_castsi512_ps(_mm512_slli_epi32(words, 16))),
          F16(_mm512_castsi512_ps(_mm512_and_si512(words, high)))};
}
// The first and the last sixteen of 32 columns.
RS_INLINE void join_pairs(F16& even, F16& odd) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  const __m512 first = _mm512_permutex2var_ps(even.r, low, odd.r);
  odd.r = _mm512_permutex2var_ps(even.r, high, odd.r);
  even.r = first;
}
#else
template <class T>
constexpr bool kColumnPairs = false;
template <class T>
ColumnPair load_pairs(const T* p);
void join_pairs(F16& even, F16& odd);
#endif

}  // namespace recsparse::RS_ISA
