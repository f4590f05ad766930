// Draws of (user, positive, negative) as pure functions of (seed, draw number), shared by every backend.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/philox.h"

namespace recsparse {

enum class SampleMode : int32_t {
  users = 0,         // a uniform row, then a uniform positive of it (with replacement)
  interactions = 1,  // every positive once an epoch, in shuffled order
};

constexpr int kShuffleRounds = 8;

struct ShuffleKeys {
  uint32_t word[kShuffleRounds];
};

// Round keys of the permutation of one epoch.
RS_INLINE ShuffleKeys shuffle_keys(uint64_t seed, uint64_t epoch, PhiloxStream stream = kStreamShuffle) {
  ShuffleKeys keys{};
  for (uint32_t block = 0; block < kShuffleRounds / 4; ++block) {
    const Philox4 r = philox(seed, epoch, block, stream);
    for (int i = 0; i < 4; ++i) keys.word[4 * block + i] = r.w[i];
  }
  return keys;
}

// Smallest b with 2^b >= n.
RS_INLINE int bits_for(uint64_t n) {
  int bits = 0;
  while (bits < 63 && (uint64_t{1} << bits) < n) ++bits;
  return bits;
}

// A keyed permutation of [0, n), bits = bits_for(n): a Feistel network over 2^bits values whose two parts differ by at
// most one bit, walked until it lands below n again (fewer than two passes on average, because 2^bits < 2 n).
RS_INLINE uint64_t shuffled(uint64_t position, uint64_t n, int bits, const ShuffleKeys& keys) {
  const int low_bits = (bits + 1) / 2;
  const uint32_t low_mask = static_cast<uint32_t>((uint64_t{1} << low_bits) - 1);
  const uint32_t high_mask = static_cast<uint32_t>((uint64_t{1} << (bits - low_bits)) - 1);
  do {
    uint32_t low = static_cast<uint32_t>(position) & low_mask;
    uint32_t high = static_cast<uint32_t>(position >> low_bits) & high_mask;
    for (int round = 0; round < kShuffleRounds; round += 2) {
      high ^= mix32(low ^ keys.word[round]) & high_mask;
      low ^= mix32(high ^ keys.word[round + 1]) & low_mask;
    }
    position = uint64_t{high} << low_bits | low;
  } while (position >= n);
  return position;
}

// The r-th id, counted from 0, that is not in `items` (ascending, unique, `degree` of them). items[t] - t ids below
// items[t] are absent, so the answer is r + (number of t with items[t] - t <= r). No rejection, no bias.
RS_INLINE int64_t absent_id(const int32_t* items, int64_t degree, int64_t r) {
  int64_t below = 0;
  for (int64_t span = degree; span > 0;) {
    const int64_t half = (span + 1) / 2;
    // Branch-free: a mispredicted branch would cost more than the whole search.
    below += items[below + half - 1] - (below + half - 1) <= r ? half : 0;
    span -= half;
  }
  return r + below;
}

// The row that holds position `edge`: the last r with indptr[r] <= edge.
RS_INLINE int64_t row_of(const int64_t* indptr, int64_t n_rows, int64_t edge) {
  int64_t row = 0;
  for (int64_t span = n_rows; span > 1;) {
    const int64_t half = span / 2;
    row += indptr[row + half] <= edge ? half : 0;
    span -= half;
  }
  return row;
}

}  // namespace recsparse
