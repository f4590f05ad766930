// Rebuilds one slab; see prune_regrow.h. Include after the primitives of an instruction set:
//   keep_bits, count_keys (values), compress, expand (values, floats and bytes), deposit_bits, extract_bits.
// V is the type that weights are moved as: float, or uint16_t for both types of 16 bits.
//
// Values are only ever moved by two dense streams: compress drops what leaves, expand opens zeros for what enters. Rows
// matter to bits alone: a bit for each value says whether it stays, and the loop over rows turns those bits into the new
// index. Optimiser state lies in the order of the values, so the same bits move it.
#pragma once

#include <cstring>

#include "core/rows.h"
#include "cpu/prune_regrow.h"

namespace recsparse::RS_ISA {

// Appends bits to a stream, which has eight bytes to spare.
struct BitWriter {
  char* out;
  uint64_t pending = 0;
  int filled = 0;

  RS_INLINE_MEMBER explicit BitWriter(uint64_t* stream) : out(reinterpret_cast<char*>(stream)) {}

  // Up to 32 bits, without a branch.
  RS_INLINE_MEMBER void put(uint64_t bits, int count) {
    pending |= bits << filled;
    filled += count;
    std::memcpy(out, &pending, 8);
    const int whole = filled >> 5;
    out += 4 * whole;
    pending >>= 32 * whole;
    filled &= 31;
  }
};

// `count` <= 64 bits of a stream from bit `at`.
RS_INLINE uint64_t get_bits(const uint64_t* stream, int64_t at, int count) {
  const char* first = reinterpret_cast<const char*>(stream) + (at >> 3);
  uint64_t word;
  std::memcpy(&word, first, 8);
  const int skipped = at & 7;
  word >>= skipped;
  if (count + skipped > 64) word |= static_cast<uint64_t>(static_cast<uint8_t>(first[8])) << (64 - skipped);
  return word & low_bits(count);
}

// The bits of a row's values in pieces of at most 64, one for every 64 columns.
struct RowBits {
  uint64_t bits[kMaxWords / 2];
  int sizes[kMaxWords / 2];

  RS_INLINE_MEMBER void append(BitWriter& stream, int pieces) const {
    for (int i = 0; i < pieces; ++i) {
      stream.put(bits[i] & low_bits(32), sizes[i] < 32 ? sizes[i] : 32);
      if (sizes[i] > 32) stream.put(bits[i] >> 32, sizes[i] - 32);
    }
  }
};

RS_INLINE void choose_grown(const PruneRegrowArgs& args, const uint32_t* score_keys, const Slab& slab,
                            SlabScratch* scratch) {
  int64_t ties = slab.grow.ties, count = 0;
  for (int64_t i = slab.first_candidate; i < slab.first_candidate + slab.candidates; ++i) {
    const bool equal = score_keys[i] == slab.grow.threshold;
    if (score_keys[i] > slab.grow.threshold || (equal && ties > 0)) scratch->grown[count++] = args.keys[i];
    ties -= equal;
  }
  scratch->grown[count] = INT64_MAX;
  scratch->grown_count = count;
}

// W: mask words of a row, 0 when not known at compile time.
template <int W>
static void rebuild_bits(const PruneRegrowArgs& args, const Slab& slab, SlabScratch* scratch) {
  const int dim = args.layout.dim, words = W ? W : mask_words(dim), pieces = (words + 1) / 2;
  const int per_block = bits_rows_per_block(words), block_words = bits_block_words(words);
  const bool growing = scratch->grown_count > 0;
  const int64_t* grown = scratch->grown;
  BitWriter survivor(scratch->survivor);
  uint64_t* block = args.index + slab.first_row / per_block * block_words;
  int64_t at = 0, key = slab.first_row * dim, start = slab.new_start;
  for (int64_t row = 0; row < slab.rows; row += per_block, block += block_words) {
    block[0] = static_cast<uint64_t>(start);
    char* mask = reinterpret_cast<char*>(block + 1);
    const int64_t end = row + per_block < slab.rows ? per_block : slab.rows - row;
    for (int64_t r = 0; r < end; ++r, key += dim) {
      RowBits stays, old;
      for (int i = 0; i < pieces; ++i) {
        const int nbytes = 2 * i + 1 < words ? 8 : 4;
        uint64_t before = 0;
        std::memcpy(&before, mask, nbytes);
        stays.sizes[i] = popcount64(before);
        stays.bits[i] = get_bits(scratch->keep, at, stays.sizes[i]);
        at += stays.sizes[i];
        const uint64_t survivors = deposit_bits(stays.bits[i], before);
        uint64_t after = survivors;
        const int64_t first = key + 64 * i, last = i + 1 < pieces ? first + 64 : key + dim;
        for (; *grown < last; ++grown) after |= 1ull << (*grown - first);
        old.bits[i] = extract_bits(survivors, after);
        old.sizes[i] = popcount64(after);
        start += old.sizes[i];
        std::memcpy(mask, &after, nbytes);
        mask += nbytes;
      }
      if (growing) old.append(survivor, pieces);
    }
  }
}

// Merge of a row's surviving columns with its grown keys, both ascending: a bit for each column of the new row says that
// it survived. Sets `after` to their number and steps `grown` past the row.
RS_INLINE RowBits merge_columns(const uint8_t* cols, int survivors, int64_t key, int64_t end_key, const int64_t** grown,
                                int* after) {
  RowBits row;
  int count = 0;
  for (int taken = 0; taken < survivors || **grown < end_key; ++count) {
    const int piece = count >> 6, bit = count & 63;
    const bool survivor = taken < survivors && key + cols[taken] < **grown;
    row.bits[piece] = (bit ? row.bits[piece] : 0) | static_cast<uint64_t>(survivor) << bit;
    row.sizes[piece] = bit + 1;
    taken += survivor;
    *grown += !survivor;
  }
  *after = count;
  return row;
}

// Surviving columns are already packed in scratch->cols.
static void rebuild_cols8(const PruneRegrowArgs& args, const Slab& slab, SlabScratch* scratch) {
  const int dim = args.layout.dim, per_block = length_rows_per_block(dim);
  const bool growing = scratch->grown_count > 0, wide = dim == 256;
  const int64_t* grown = scratch->grown;
  const uint8_t* cols = scratch->cols;
  BitWriter survivor(scratch->survivor);
  uint64_t* block = args.index + slab.first_row / per_block * 8;
  int64_t at = 0, key = slab.first_row * dim, start = slab.new_start;
  for (int64_t row = 0; row < slab.rows; row += per_block, block += 8) {
    block[0] = static_cast<uint64_t>(start);
    uint8_t* lengths = reinterpret_cast<uint8_t*>(block + 1);
    const int64_t end = row + per_block < slab.rows ? per_block : slab.rows - row;
    for (int64_t r = 0; r < end; ++r, key += dim) {
      uint16_t length = lengths[r];
      if (wide) std::memcpy(&length, lengths + 2 * r, 2);
      RowBits stays;
      int pieces = 0, survivors = 0;
      for (int left = length; left > 0; left -= 64, ++pieces) {
        stays.sizes[pieces] = left < 64 ? left : 64;
        stays.bits[pieces] = get_bits(scratch->keep, at, stays.sizes[pieces]);
        at += stays.sizes[pieces];
        survivors += popcount64(stays.bits[pieces]);
      }
      int after = survivors;
      if (growing) {
        const RowBits old = merge_columns(cols, survivors, key, key + dim, &grown, &after);
        old.append(survivor, (after + 63) / 64);
      }
      cols += survivors;
      const uint16_t new_length = static_cast<uint16_t>(after);
      if (wide) {
        std::memcpy(lengths + 2 * r, &new_length, 2);
      } else {
        lengths[r] = static_cast<uint8_t>(new_length);
      }
      start += new_length;
    }
  }
}

template <class V>
static void count_values(const void* values, int64_t first, int64_t size, uint32_t threshold, int64_t* above,
                         int64_t* equal) {
  count_keys(static_cast<const V*>(values) + first, size, threshold, above, equal);
}

template <class S>
RS_INLINE void compress_state(const PruneRegrowArgs& args, const Slab& slab, const SlabScratch& scratch) {
  const S* state = reinterpret_cast<const S*>(args.state) + slab.old_start;
  compress(reinterpret_cast<S*>(scratch.state), state, scratch.keep, slab.old_count);
}
template <class S>
RS_INLINE void expand_state(const PruneRegrowArgs& args, const Slab& slab, const SlabScratch& scratch) {
  S* state = reinterpret_cast<S*>(args.state) + slab.new_start;
  expand(state, reinterpret_cast<const S*>(scratch.state), scratch.survivor, slab.new_count);
}

template <class V>
static void read_slab(const PruneRegrowArgs& args, const uint32_t* score_keys, const Slab& slab, SlabScratch* scratch) {
  const V* values = static_cast<const V*>(args.values) + slab.old_start;
  keep_bits(values, slab.old_count, slab.keep, scratch->keep);
  choose_grown(args, score_keys, slab, scratch);
  if (args.layout.kind == IndexKind::cols8) {
    compress(scratch->cols, args.cols + slab.old_start, scratch->keep, slab.old_count);
    rebuild_cols8(args, slab, scratch);
  } else {
    mask_words(args.layout.dim) == 2 ? rebuild_bits<2>(args, slab, scratch) : rebuild_bits<0>(args, slab, scratch);
  }
  compress(static_cast<V*>(scratch->values), values, scratch->keep, slab.old_count);
  if (args.state_per_weight == 1) compress_state<float>(args, slab, *scratch);
  if (args.state_per_weight == 2) compress_state<StatePair>(args, slab, *scratch);
}

template <class V>
static void write_slab(const PruneRegrowArgs& args, const Slab& slab, const SlabScratch& scratch) {
  const size_t count = static_cast<size_t>(slab.new_count);
  V* values = static_cast<V*>(args.values) + slab.new_start;
  const V* survivors = static_cast<const V*>(scratch.values);
  const size_t state_bytes = sizeof(float) * static_cast<size_t>(args.state_per_weight);
  uint8_t* cols = args.layout.kind == IndexKind::cols8 ? args.cols + slab.new_start : nullptr;
  if (scratch.grown_count == 0) {
    std::memcpy(values, survivors, sizeof(V) * count);
    if (state_bytes)
      std::memcpy(args.state + args.state_per_weight * slab.new_start, scratch.state, state_bytes * count);
    if (cols) std::memcpy(cols, scratch.cols, count);
    return;
  }
  expand(values, survivors, scratch.survivor, slab.new_count);
  if (args.state_per_weight == 1) expand_state<float>(args, slab, scratch);
  if (args.state_per_weight == 2) expand_state<StatePair>(args, slab, scratch);
  if (!cols) return;
  expand(cols, scratch.cols, scratch.survivor, slab.new_count);
  // Both the grown keys and the gaps are in row-major order.
  const int64_t* grown = scratch.grown;
  for (int64_t i = 0; i < slab.new_count; i += 64) {
    const int64_t left = slab.new_count - i;
    uint64_t gaps = ~scratch.survivor[i >> 6] & low_bits(left < 64 ? static_cast<int>(left) : 64);
    for (; gaps; gaps &= gaps - 1) cols[i + __builtin_ctzll(gaps)] = static_cast<uint8_t>(*grown++ % args.layout.dim);
  }
}

}  // namespace recsparse::RS_ISA
