#include <cstdint>

#include "core/half.h"
#include "cpu/prune_regrow.h"

#define RS_ISA portable

namespace recsparse::portable {

// The low bits go to the set positions of the mask, in ascending order; and back.
RS_INLINE uint64_t deposit_bits(uint64_t bits, uint64_t mask) {
  uint64_t out = 0;
  for (; mask; mask &= mask - 1, bits >>= 1) out |= bits & 1 ? mask & -mask : 0;
  return out;
}
RS_INLINE uint64_t extract_bits(uint64_t bits, uint64_t mask) {
  uint64_t out = 0;
  for (int i = 0; mask; mask &= mask - 1, ++i) out |= static_cast<uint64_t>((bits & mask & -mask) != 0) << i;
  return out;
}

RS_INLINE bool bit_at(const uint64_t* stream, int64_t i) { return stream[i >> 6] >> (i & 63) & 1; }

RS_INLINE uint32_t key_of(float value) { return magnitude_key(value); }
RS_INLINE uint32_t key_of(uint16_t bits) { return bits & kMagnitudeMask16; }

template <class V>
static void count_keys(const V* values, int64_t size, uint32_t threshold, int64_t* above, int64_t* equal) {
  int64_t sum_above = 0, sum_equal = 0;
  for (int64_t i = 0; i < size; ++i) {
    sum_above += key_of(values[i]) > threshold;
    sum_equal += key_of(values[i]) == threshold;
  }
  *above = sum_above;
  *equal = sum_equal;
}

template <class V>
static void keep_bits(const V* values, int64_t n, Choice keep, uint64_t* stream) {
  int64_t ties = keep.ties;
  for (int64_t i = 0; i < n; i += 64) {
    uint64_t bits = 0;
    for (int64_t j = i; j < n && j < i + 64; ++j) {
      const uint32_t key = key_of(values[j]);
      const bool equal = key == keep.threshold;
      bits |= static_cast<uint64_t>(key > keep.threshold || (equal && ties > 0)) << (j - i);
      ties -= equal;
    }
    stream[i >> 6] = bits;
  }
}

template <class T>
RS_INLINE void compress(T* dst, const T* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    *dst = src[i];  // no branch: overwritten by the next unless it stays
    dst += bit_at(stream, i);
  }
}

template <class T>
RS_INLINE void expand(T* dst, const T* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const bool set = bit_at(stream, i);
    dst[i] = set ? *src : T{};
    src += set;
  }
}

}  // namespace recsparse::portable

#include "cpu/prune_regrow_kernel.h"

namespace recsparse::portable {

extern const PruneRegrowKernel prune_regrow_kernels[2] = {
    {count_values<float>, read_slab<float>, write_slab<float>},
    {count_values<uint16_t>, read_slab<uint16_t>, write_slab<uint16_t>},
};

}  // namespace recsparse::portable
