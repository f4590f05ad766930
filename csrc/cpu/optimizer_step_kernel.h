// The optimiser ops for one instruction set; see optimizer_step.h. Include after an isa_*.h.
//
// Work goes in blocks of rows. *Collecting* decodes them and brings their gradients into packed order, whatever form they
// came in; *applying* runs the optimiser over them. Only the first knows of index kinds and only the second of
// optimisers. On the lazy path block b + 1 is collected, and its weights and state asked for, before block b is updated.
#pragma once

#include "cpu/optimizer_step.h"
#include "cpu/prefetch.h"
#include "cpu/update_row.h"

namespace recsparse::RS_ISA {

struct RowBlock {
  int size = 0;
  RowUpdate rows[kUpdateRows];
  alignas(64) float gradients[kUpdateRows * kMaxDim + 16];  // packed, row after row; vectors are stored whole
};

alignas(64) static const float kNoGradient[kMaxDim] = {};

struct NoRank {
  RS_INLINE_MEMBER static uint64_t mask_bits(const uint64_t*, int, int) { return 0; }
  RS_INLINE_MEMBER static uint64_t lengths(const uint64_t*, int, bool) { return 0; }
};

// The kept columns of the sum of some dense rows, packed at `out`. `source(k)` is the k-th of `count` rows.
template <IndexKind K, int W, class Source>
RS_INLINE void pack_gradient(const RowRef<W>& ref, int dim, int chunks, int64_t count, Source&& source, float* out) {
  for (int c = 0; c < chunks; ++c) {
    const uint32_t lanes = static_cast<uint32_t>(low_bits(dim - 16 * c) & 0xffff);
    const uint32_t mask = chunk_mask(ref, c);
    F16 sum = load(source(0) + 16 * c, lanes);
    for (int64_t k = 1; k < count; ++k) sum = sum + load(source(k) + 16 * c, lanes);
    store(out, K == IndexKind::bits || K == IndexKind::cols8 ? compress(sum, mask) : sum);
    out += popcount64(mask);
  }
}

template <class Step>
static void apply_block(const OptimizerStepArgs& args, const Step& step, bool far, const RowBlock& block) {
  for (int i = 0; i < block.size; ++i) {
    const RowUpdate& row = block.rows[i];
    update_row(step, args.values, args.state, row.row, row.start, row.count, far, [&](uint32_t c) {
      return load(row.gradient + c, static_cast<uint32_t>(low_bits(static_cast<int>(row.count - c)) & 0xffff));
    });
  }
}

// ---- rows named by a gradient ----------------------------------------------------------------------------------------

constexpr int kKeysAhead = 64;      // the index line of key k + 64 is on its way
constexpr int kGradientsAhead = 8;  // and the gradient of key k + 8

struct KeyCursor {
  const uint64_t* keys;
  int shift;
  int64_t at, end;
};

// Collects the next rows of sorted keys, and asks for their weights and state.
template <IndexKind K, int W>
static void collect_keys(const OptimizerStepArgs& args, KeyCursor& cursor, RowBlock& block) {
  const TableView table = args.table;
  const int dim = table.layout.dim, chunks = chunk_count<W>(dim), per_weight = state_per_weight(args.options.kind);
  const uint64_t position = low_bits(cursor.shift);
  const uint64_t* keys = cursor.keys;
  float* out = block.gradients;
  block.size = 0;
  while (block.size < kUpdateRows && cursor.at < cursor.end) {
    const int64_t first = cursor.at;
    const uint64_t row = keys[first] >> cursor.shift;
    do {
      const int64_t k = cursor.at++;
      if (K != IndexKind::full && k + kKeysAhead < cursor.end) {
        prefetch(index_line<K, W>(table, static_cast<int64_t>(keys[k + kKeysAhead] >> cursor.shift)));
      }
      if (k + kGradientsAhead < cursor.end) {
        prefetch_span(args.grad + (keys[k + kGradientsAhead] & position) * dim, static_cast<uint32_t>(dim));
      }
    } while (cursor.at < cursor.end && keys[cursor.at] >> cursor.shift == row);
    RowRef<W> ref = locate<K, W, Rank>(table, static_cast<int64_t>(row));
    complete<K, W>(table, ref);
    prefetch_span<true>(args.values + ref.start, ref.count);
    if (per_weight == 2) prefetch_span<true, 3>(args.state + 2 * ref.start, 2 * ref.count);
    if (per_weight == 1) prefetch_span<true>(args.state + ref.start, ref.count);
    if (args.options.kind == Optimizer::rowwise_adagrad) prefetch_write(args.state + row);
    pack_gradient<K>(
        ref, dim, chunks, cursor.at - first, [&](int64_t k) { return args.grad + (keys[first + k] & position) * dim; },
        out);
    block.rows[block.size++] = RowUpdate{static_cast<int64_t>(row), ref.start, ref.count, out};
    out += ref.count;
  }
}

template <IndexKind K, int W>
static void lazy_rows(const OptimizerStepArgs& args, const uint64_t* keys, int shift, bool far, int64_t begin,
                      int64_t end) {
  with_step(args.options, args.step, true, [&](const auto& step) {
    RowBlock blocks[2];
    KeyCursor cursor{keys, shift, begin, end};
    if (K != IndexKind::full) {
      for (int64_t k = begin; k < end && k < begin + kKeysAhead; ++k) {
        prefetch(index_line<K, W>(args.table, static_cast<int64_t>(keys[k] >> shift)));
      }
    }
    collect_keys<K, W>(args, cursor, blocks[0]);
    for (int b = 0; blocks[b].size > 0; b ^= 1) {
      collect_keys<K, W>(args, cursor, blocks[b ^ 1]);
      apply_block(args, step, far, blocks[b]);
    }
  });
}

// ---- all rows --------------------------------------------------------------------------------------------------------

template <IndexKind K, int W>
static void all_rows(const OptimizerStepArgs& args, const uint64_t* key, const uint64_t* keys_end, int shift,
                     int64_t begin, int64_t end) {
  const TableView table = args.table;
  const int dim = table.layout.dim, chunks = chunk_count<W>(dim);
  const uint64_t position = low_bits(shift);
  with_step(args.options, args.step, args.lazy, [&](const auto& step) {
    RowBlock block;
    uint64_t start = locate<K, W, Rank>(table, begin).start;
    for (int64_t first = begin; first < end; first += kUpdateRows) {
      const int64_t last = first + kUpdateRows < end ? first + kUpdateRows : end;
      float* out = block.gradients;
      block.size = 0;
      for (int64_t row = first; row < last; ++row) {
        RowRef<W> ref = locate<K, W, NoRank>(table, row);
        ref.start = start;
        start += ref.count;
        const float* gradient = kNoGradient;
        if (args.form == GradientForm::packed) {
          gradient = args.grad + ref.start;
        } else if (args.form == GradientForm::dense) {
          complete<K, W>(table, ref);
          gradient = out;
          pack_gradient<K>(ref, dim, chunks, 1, [&](int64_t) { return args.grad + row * dim; }, out);
          out += ref.count;
        } else if (key < keys_end && *key >> shift == static_cast<uint64_t>(row)) {
          complete<K, W>(table, ref);
          const uint64_t* first_key = key;
          while (key < keys_end && *key >> shift == static_cast<uint64_t>(row)) ++key;
          gradient = out;
          pack_gradient<K>(
              ref, dim, chunks, key - first_key, [&](int64_t k) { return args.grad + (first_key[k] & position) * dim; },
              out);
          out += ref.count;
        }
        block.rows[block.size++] = RowUpdate{row, ref.start, ref.count, gradient};
      }
      apply_block(args, step, false, block);
    }
  });
}

// ---- choice of the variant -------------------------------------------------------------------------------------------

template <IndexKind K>
static void lazy_width(const OptimizerStepArgs& args, const uint64_t* keys, int shift, bool far, int64_t begin,
                       int64_t end) {
  switch (mask_words(args.table.layout.dim)) {
    case 2: return lazy_rows<K, 2>(args, keys, shift, far, begin, end);
    case 4: return lazy_rows<K, 4>(args, keys, shift, far, begin, end);
    default: return lazy_rows<K, 0>(args, keys, shift, far, begin, end);
  }
}

static void optimizer_lazy(const OptimizerStepArgs& args, const uint64_t* keys, int shift, bool far, int64_t begin,
                           int64_t end) {
  switch (args.table.layout.kind) {
    case IndexKind::full: return lazy_width<IndexKind::full>(args, keys, shift, far, begin, end);
    case IndexKind::prefix: return lazy_width<IndexKind::prefix>(args, keys, shift, far, begin, end);
    case IndexKind::bits: return lazy_width<IndexKind::bits>(args, keys, shift, far, begin, end);
    default: return lazy_width<IndexKind::cols8>(args, keys, shift, far, begin, end);
  }
}

template <IndexKind K>
static void full_width(const OptimizerStepArgs& args, const uint64_t* keys, const uint64_t* keys_end, int shift,
                       int64_t begin, int64_t end) {
  switch (mask_words(args.table.layout.dim)) {
    case 2: return all_rows<K, 2>(args, keys, keys_end, shift, begin, end);
    case 4: return all_rows<K, 4>(args, keys, keys_end, shift, begin, end);
    default: return all_rows<K, 0>(args, keys, keys_end, shift, begin, end);
  }
}

static void optimizer_full(const OptimizerStepArgs& args, const uint64_t* keys, const uint64_t* keys_end, int shift,
                           int64_t begin, int64_t end) {
  switch (args.table.layout.kind) {
    case IndexKind::full: return full_width<IndexKind::full>(args, keys, keys_end, shift, begin, end);
    case IndexKind::prefix: return full_width<IndexKind::prefix>(args, keys, keys_end, shift, begin, end);
    case IndexKind::bits: return full_width<IndexKind::bits>(args, keys, keys_end, shift, begin, end);
    default: return full_width<IndexKind::cols8>(args, keys, keys_end, shift, begin, end);
  }
}

}  // namespace recsparse::RS_ISA
