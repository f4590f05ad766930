#include <cstring>

#include "core/half.h"
#include "cpu/isa_avx2.h"
#include "cpu/prune_regrow.h"

namespace recsparse::avx2 {

RS_INLINE uint64_t deposit_bits(uint64_t bits, uint64_t mask) { return _pdep_u64(bits, mask); }
RS_INLINE uint64_t extract_bits(uint64_t bits, uint64_t mask) { return _pext_u64(bits, mask); }

// Bits [i, i + 8) of a stream, i a multiple of eight, as far as they lie below n.
RS_INLINE uint32_t bits8(const uint64_t* stream, int64_t i, int64_t n) {
  const uint32_t bits = reinterpret_cast<const uint8_t*>(stream)[i >> 3];
  return n - i >= 8 ? bits : bits & ((1u << (n - i)) - 1);
}

RS_INLINE uint32_t lane_bits(__m256i lanes) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
}

// At most N bytes; N, the ordinary case, without a call.
template <size_t N>
RS_INLINE void copy(void* dst, const void* src, size_t size) {
  if (__builtin_expect(size == N, 1)) {
    std::memcpy(dst, src, N);
  } else {
    std::memcpy(dst, src, size);
  }
}

// The keys of the first `size` of eight values: their magnitudes' bits, which are below 2^31.
RS_INLINE __m256i load_keys(const float* p, int size) {
  const __m256 values = size == 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, lane_range(0, size));
  return _mm256_and_si256(_mm256_castps_si256(values), _mm256_set1_epi32(kMagnitudeMask));
}
RS_INLINE __m256i load_keys(const uint16_t* p, int size) {
  __m128i bits = _mm_setzero_si128();
  copy<16>(&bits, p, 2 * static_cast<size_t>(size));
  return _mm256_and_si256(_mm256_cvtepu16_epi32(bits), _mm256_set1_epi32(kMagnitudeMask16));
}

// Which of values[i, i + 8), as far as they lie below n, are above the threshold and which are equal to it.
struct Compared {
  uint32_t above, equal;
};
template <class V>
RS_INLINE Compared compare8(const V* values, int64_t i, int64_t n, uint32_t threshold) {
  const int size = n - i < 8 ? static_cast<int>(n - i) : 8;
  const __m256i key = load_keys(values + i, size), at = _mm256_set1_epi32(static_cast<int>(threshold));
  const uint32_t lanes = (1u << size) - 1;
  return Compared{lane_bits(_mm256_cmpgt_epi32(key, at)) & lanes, lane_bits(_mm256_cmpeq_epi32(key, at)) & lanes};
}

template <class V>
static void count_keys(const V* values, int64_t size, uint32_t threshold, int64_t* above, int64_t* equal) {
  int64_t sum_above = 0, sum_equal = 0;
  for (int64_t i = 0; i < size; i += 8) {
    const Compared key = compare8(values, i, size, threshold);
    sum_above += __builtin_popcount(key.above);
    sum_equal += __builtin_popcount(key.equal);
  }
  *above = sum_above;
  *equal = sum_equal;
}

template <class V>
static void keep_bits(const V* values, int64_t n, Choice keep, uint64_t* stream) {
  int64_t ties = keep.ties;
  for (int64_t i = 0; i < n; i += 8) {
    const Compared key = compare8(values, i, n, keep.threshold);
    uint32_t bits = key.above;
    if (key.equal) {
      const int count = __builtin_popcount(key.equal);
      bits |= ties >= count ? key.equal : _pdep_u32((1u << ties) - 1, key.equal);
      ties -= ties < count ? ties : count;
    }
    reinterpret_cast<uint8_t*>(stream)[i >> 3] = static_cast<uint8_t>(bits);
  }
}

// The elements of src [n] whose bit is set; dst has room for a whole vector more.
RS_INLINE void compress(float* dst, const float* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += 8) {
    const uint32_t bits = bits8(stream, i, n);
    const __m256 values =
        n - i >= 8 ? _mm256_loadu_ps(src + i) : _mm256_maskload_ps(src + i, lane_range(0, static_cast<int>(n - i)));
    _mm256_storeu_ps(dst, permute8(values, _pext_u32(0x76543210u, nibbles8(bits))));
    dst += __builtin_popcount(bits);
  }
}

// Small elements: as many as a 64-bit word holds at a time, by pext and pdep on the word.
template <class T>
struct Word {
  static constexpr int kSize = 8 / sizeof(T);
  // All ones in the elements of the set bits.
  RS_INLINE_MEMBER static uint64_t mask(uint32_t bits) {
    return _pdep_u64(bits, sizeof(T) == 1 ? 0x0101010101010101ull : 0x0001000100010001ull) *
           ((1u << 8 * sizeof(T)) - 1);
  }
  // Of the word at element i of n.
  RS_INLINE_MEMBER static uint32_t bits(const uint64_t* stream, int64_t i, int64_t n) {
    return bits8(stream, i & ~int64_t{7}, n) >> (i & 7) & ((1u << kSize) - 1);
  }
  RS_INLINE_MEMBER static size_t bytes(int64_t i, int64_t n) {
    return n - i >= kSize ? 8 : static_cast<size_t>(n - i) * sizeof(T);
  }
};

template <class T>
RS_INLINE void compress(T* dst, const T* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += Word<T>::kSize) {
    const uint32_t bits = Word<T>::bits(stream, i, n);
    uint64_t word = 0;
    copy<8>(&word, src + i, Word<T>::bytes(i, n));
    word = _pext_u64(word, Word<T>::mask(bits));
    std::memcpy(dst, &word, 8);
    dst += __builtin_popcount(bits);
  }
}

// dst [n]: consecutive elements of src where the bit is set, zero elsewhere. Reads up to a vector past the last of src.
RS_INLINE void expand(float* dst, const float* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += 8) {
    const uint32_t bits = bits8(stream, i, n), nibbles = nibbles8(bits);
    const __m256 values = permute8(_mm256_loadu_ps(src), _pdep_u32(0x76543210u, nibbles));
    const __m256 opened = _mm256_and_ps(values, _mm256_castsi256_ps(lanes8(bits)));
    if (n - i >= 8) {
      _mm256_storeu_ps(dst + i, opened);
    } else {
      store_first(dst + i, F16(opened, opened), static_cast<int>(n - i));
    }
    src += __builtin_popcount(bits);
  }
}

template <class T>
RS_INLINE void expand(T* dst, const T* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; i += Word<T>::kSize) {
    const uint32_t bits = Word<T>::bits(stream, i, n);
    uint64_t word;
    std::memcpy(&word, src, 8);
    word = _pdep_u64(word, Word<T>::mask(bits));
    copy<8>(dst + i, &word, Word<T>::bytes(i, n));
    src += __builtin_popcount(bits);
  }
}

// Pairs are a word each: no branch, what does not stay is overwritten.
RS_INLINE bool bit_at(const uint64_t* stream, int64_t i) { return stream[i >> 6] >> (i & 63) & 1; }
RS_INLINE void compress(StatePair* dst, const StatePair* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    *dst = src[i];
    dst += bit_at(stream, i);
  }
}
RS_INLINE void expand(StatePair* dst, const StatePair* src, const uint64_t* stream, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const bool set = bit_at(stream, i);
    dst[i] = set ? *src : StatePair{};
    src += set;
  }
}

}  // namespace recsparse::avx2

#include "cpu/prune_regrow_kernel.h"

namespace recsparse::avx2 {

extern const PruneRegrowKernel prune_regrow_kernels[2] = {
    {count_values<float>, read_slab<float>, write_slab<float>},
    {count_values<uint16_t>, read_slab<uint16_t>, write_slab<uint16_t>},
};

}  // namespace recsparse::avx2
