// Philox4x32-10 (Salmon et al., SC'11): a counter-based generator. A draw is a pure function of (key, counter), so the
// same logical draw has the same bits on every thread count and backend. Counters are logical (row, column, sample
// number), never a thread or a physical slot.
#pragma once

#include <cstdint>

#include "macros.h"

namespace recsparse {

// The fourth counter word. One value per purpose keeps the streams of one seed independent.
enum PhiloxStream : uint32_t {
  kStreamInitValue = 1,  // counter = (row lo, row hi, column / 2)
  kStreamInitMask = 2,   // counter = (row lo, row hi, column / 4)
  kStreamSample = 3,     // counter = (draw lo, draw hi, 0)
  kStreamShuffle = 4,    // counter = (epoch lo, epoch hi, number of the round key / 4)
  kStreamSynthetic = 5,  // counter = (user lo, user hi, interaction number / 2)
  kStreamSplit = 6,      // counter = (user lo, user hi, item)
  kStreamRounding = 7,   // counter = (step lo, step hi, 0)
  kStreamOrder = 8,      // counter = (node lo, node hi, 0)
};

struct Philox4 {
  uint32_t w[4];
};

RS_INLINE uint32_t mul_hi32(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}

RS_INLINE Philox4 philox(uint64_t seed, uint64_t counter, uint32_t counter2, uint32_t stream) {
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32), c2 = counter2, c3 = stream;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint32_t hi0 = mul_hi32(0xD2511F53u, c0), lo0 = 0xD2511F53u * c0;
    const uint32_t hi1 = mul_hi32(0xCD9E8D57u, c2), lo1 = 0xCD9E8D57u * c2;
    c0 = hi1 ^ c1 ^ k0;
    c1 = lo1;
    c2 = hi0 ^ c3 ^ k1;
    c3 = lo0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Philox4{{c0, c1, c2, c3}};
}

// Bijective mixing of a 32-bit word (the finaliser of MurmurHash3).
RS_INLINE uint32_t mix32(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
  x = (x ^ (x >> 13)) * 0xC2B2AE35u;
  return x ^ (x >> 16);
}

// Uniform integer in [0, n) from 32 random bits; the bias between two outcomes is at most n / 2^32.
RS_INLINE uint32_t bounded32(uint32_t random, uint32_t n) { return mul_hi32(random, n); }

// Uniform integer in [0, n) from 64 random bits; the bias is at most n / 2^64.
RS_INLINE uint64_t bounded64(uint64_t random, uint64_t n) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(random, n);
#else
  return static_cast<uint64_t>((static_cast<unsigned __int128>(random) * n) >> 64);
#endif
}

}  // namespace recsparse
