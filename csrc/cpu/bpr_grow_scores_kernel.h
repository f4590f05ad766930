// bpr_grow_scores for one instruction set. Include after an isa_*.h. Runs at prune/regrow steps only, so every kind
// goes through the generic decoder.
#pragma once

#include "cpu/bpr_grow_scores.h"
#include "cpu/row_access.h"
#include "cpu/vector_math.h"

namespace recsparse::RS_ISA {

constexpr int kGrowChunks = kMaxDim / 16;

// acc += scale * row, full width.
template <class T>
RS_INLINE void add_row(const BprGrowScoresArgs& args, int64_t row, int chunks, F16 scale, F16* acc) {
  const RowRef<0> ref = read_row(args.table, row);
  const T* p = static_cast<const T*>(args.values) + ref.start;
  for (int c = 0; c < chunks; ++c) {
    const uint32_t mask = chunk_mask(ref, c);
    acc[c] = fma(load_chunk<IndexKind::bits>(p, mask, true), scale, acc[c]);
    p += popcount64(mask);
  }
}

template <class T>
static void grow_coefficients(const BprGrowScoresArgs& args, int64_t begin, int64_t end) {
  const int chunks = chunk_count<0>(args.table.layout.dim);
  const F16 inverse_count(1.0f / static_cast<float>(args.count));
  for (int64_t t = begin; t < end; t += 16) {
    const int live = end - t < 16 ? static_cast<int>(end - t) : 16;
    alignas(64) float difference[16] = {};
    for (int k = 0; k < live; ++k) {
      F16 user[kGrowChunks], partner[kGrowChunks];
      for (int c = 0; c < chunks; ++c) user[c] = partner[c] = F16(0.0f);
      add_row<T>(args, args.users[t + k], chunks, F16(1.0f), user);
      add_row<T>(args, args.item_offset + args.neg[t + k], chunks, F16(1.0f), partner);
      add_row<T>(args, args.item_offset + args.pos[t + k], chunks, F16(-1.0f), partner);
      F16 dot(0.0f);
      for (int c = 0; c < chunks; ++c) dot = fma(user[c], partner[c], dot);
      difference[k] = reduce_add(dot);
    }
    const LogisticLoss out = logistic_loss(load(difference));
    store(args.coefficient + t, out.sigmoid * inverse_count, static_cast<uint32_t>(low_bits(live)));
  }
}

template <class T>
static int grow_row(const BprGrowScoresArgs& args, const uint64_t* keys, int shift, int64_t begin, int64_t end,
                    float floor, GrowCandidate* out) {
  const int dim = args.table.layout.dim, chunks = chunk_count<0>(dim);
  const uint64_t occurrence = low_bits(shift);
  F16 gradient[kGrowChunks];
  for (int c = 0; c < chunks; ++c) gradient[c] = F16(0.0f);
  for (int64_t k = begin; k < end; ++k) {
    const int64_t occ = static_cast<int64_t>(keys[k] & occurrence), t = occ / 3;
    const F16 plus(args.coefficient[t]), minus(-args.coefficient[t]);
    switch (occ % 3) {
      case 0:
        add_row<T>(args, args.item_offset + args.neg[t], chunks, plus, gradient);
        add_row<T>(args, args.item_offset + args.pos[t], chunks, minus, gradient);
        break;
      case 1: add_row<T>(args, args.users[t], chunks, minus, gradient); break;
      default: add_row<T>(args, args.users[t], chunks, plus, gradient);
    }
  }
  const int64_t row = static_cast<int64_t>(keys[begin] >> shift);
  const RowRef<0> ref = read_row(args.table, row);
  int found = 0;
  for (int c = 0; c < chunks; ++c) {
    alignas(64) float score[16];
    const F16 magnitude = abs(gradient[c]);
    uint32_t candidates =
        greater(magnitude, F16(floor)) & ~chunk_mask(ref, c) & static_cast<uint32_t>(low_bits(dim - 16 * c));
    if (!candidates) continue;
    store(score, magnitude);
    for (; candidates; candidates &= candidates - 1) {
      const int lane = __builtin_ctz(candidates);
      out[found++] = GrowCandidate{row * dim + 16 * c + lane, score[lane]};
    }
  }
  return found;
}

}  // namespace recsparse::RS_ISA
