// The optimiser ops for one instruction set; see optimizer_step.h. Include after an isa_*.h.
//
// Work goes in blocks of rows. *Collecting* decodes them and brings their gradients into packed order, whatever form they
// came in; *applying* runs the optimiser over them. Only the first knows of index kinds and only the second of
// optimisers. On the lazy path block b + 1 is collected, and its weights and state asked for, before block b is updated.
#pragma once

#include <type_traits>

#include "cpu/optimizer_step.h"
#include "cpu/prefetch.h"
#include "cpu/update_row.h"

namespace recsparse::RS_ISA {

constexpr int kBlockRows = 32;

struct RowUpdate {
  int64_t row;
  uint64_t start;
  uint32_t count;
  const float* gradient;  // packed
};

struct RowBlock {
  int size = 0;
  RowUpdate rows[kBlockRows];
  alignas(64) float gradients[kBlockRows * kMaxDim + 16];  // packed, row after row; vectors are stored whole
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

template <class T, class Step>
RS_INLINE void apply_block(const OptimizerStepArgs& args, const Step& step, RoundingStep rounding, bool far,
                           const RowBlock& block) {
  for (int i = 0; i < block.size; ++i) {
    const RowUpdate& row = block.rows[i];
    update_row(step, static_cast<T*>(args.values), args.state, row.row, row.start, row.count, far,
               rounding_key(rounding, row.row), [&](uint32_t c, F16) {
                 return load(row.gradient + c,
                             static_cast<uint32_t>(low_bits(static_cast<int>(row.count - c)) & 0xffff));
               });
  }
}

// ---- rows named by a gradient ----------------------------------------------------------------------------------------

constexpr int kKeysAhead = 64;      // the index line of key k + 64 is on its way
constexpr int kGradientsAhead = 8;  // and the gradient of key k + 8

template <IndexKind K, int W>
RS_INLINE void fetch_index(const OptimizerStepArgs& args, const RowKeys& keys, int64_t k) {
  if (K == IndexKind::full || k >= keys.end) return;
  prefetch(index_line<K, W>(args.table, static_cast<int64_t>(keys.keys[k] >> keys.shift)));
}

// Collects the next rows of the keys, and asks for their weights and state. G: type of the gradient.
template <class G, IndexKind K, int W>
static void collect_keys(const OptimizerStepArgs& args, RowKeys& keys, RowBlock& block) {
  const TableView table = args.table;
  const int dim = table.layout.dim, chunks = chunk_count<W>(dim), weight_bytes = value_bytes(args.value_type);
  const int state_bytes = 4 * state_per_weight(args.options.kind);
  const G* grad = static_cast<const G*>(args.grad);
  const uint64_t position = low_bits(keys.shift);
  const auto row_of = [&](int64_t k) { return grad + (keys.keys[k] & position) * dim; };
  float* out = block.gradients;
  block.size = 0;
  while (block.size < kBlockRows && keys.at < keys.end) {
    const int64_t first = keys.at;
    const int64_t row = static_cast<int64_t>(keys.keys[first] >> keys.shift);
    do {
      fetch_index<K, W>(args, keys, keys.at + kKeysAhead);
      if (keys.at + kGradientsAhead < keys.end) prefetch_span(row_of(keys.at + kGradientsAhead), dim);
      ++keys.at;
    } while (keys.at < keys.end && static_cast<int64_t>(keys.keys[keys.at] >> keys.shift) == row);
    RowRef<W> ref = locate<K, W, Rank>(table, row);
    complete<K, W>(table, ref);
    prefetch_span<true>(static_cast<const char*>(args.values) + weight_bytes * ref.start, weight_bytes * ref.count);
    const char* state = reinterpret_cast<const char*>(args.state);
    if (state_bytes) prefetch_span<true, 3>(state + state_bytes * ref.start, state_bytes * ref.count);
    if (args.options.kind == Optimizer::rowwise_adagrad) prefetch_write(args.state + row);
    pack_gradient<K>(ref, dim, chunks, keys.at - first, [&](int64_t k) { return row_of(first + k); }, out);
    block.rows[block.size++] = RowUpdate{row, ref.start, ref.count, out};
    out += ref.count;
  }
}

using CollectKeys = void (*)(const OptimizerStepArgs& args, RowKeys& keys, RowBlock& block);

template <class T, class Step>
static void lazy_rows(const OptimizerStepArgs& args, const Step& step, CollectKeys collect, RowKeys keys, bool far) {
  const RoundingStep rounding = rounding_step(args.seed, args.step);
  RowBlock blocks[2];
  // The index lines of the first keys: from then on `collect` is ahead of itself.
  for (int64_t k = keys.at; k < keys.end && k < keys.at + kKeysAhead; ++k) {
    prefetch(args.table.index + index_word(args.table.layout, static_cast<int64_t>(keys.keys[k] >> keys.shift)));
  }
  collect(args, keys, blocks[0]);
  for (int b = 0; blocks[b].size > 0; b ^= 1) {
    collect(args, keys, blocks[b ^ 1]);
    apply_block<T>(args, step, rounding, far, blocks[b]);
  }
}

// ---- all rows --------------------------------------------------------------------------------------------------------

struct NoRank {
  RS_INLINE_MEMBER static uint64_t mask_bits(const uint64_t*, int, int) { return 0; }
  RS_INLINE_MEMBER static uint64_t lengths(const uint64_t*, int, bool) { return 0; }
};

// Collects rows [first, last) of the table, whose weights begin at *start, and steps it past them. Their gradients lie one
// after the other in the block.
template <class G, IndexKind K, int W>
static void collect_rows(const OptimizerStepArgs& args, RowKeys& keys, int64_t first, int64_t last, uint64_t* start,
                         RowBlock& block) {
  const TableView table = args.table;
  const int dim = table.layout.dim, chunks = chunk_count<W>(dim);
  const G* grad = static_cast<const G*>(args.grad);
  const uint64_t position = low_bits(keys.shift);
  float* out = block.gradients;
  block.size = 0;
  for (int64_t row = first; row < last; ++row) {
    RowRef<W> ref = locate<K, W, NoRank>(table, row);
    ref.start = *start;
    *start += ref.count;
    if (args.form == GradientForm::packed) {
      for (uint32_t c = 0; c < ref.count; c += 16) {
        store(out + c,
              load_values(grad + ref.start + c, static_cast<int>(ref.count - c < 16 ? ref.count - c : 16), false));
      }
    } else if (args.form == GradientForm::dense) {
      complete<K, W>(table, ref);
      pack_gradient<K>(ref, dim, chunks, 1, [&](int64_t) { return grad + row * dim; }, out);
    } else {
      const int64_t begin = keys.at;
      while (keys.at < keys.end && static_cast<int64_t>(keys.keys[keys.at] >> keys.shift) == row) ++keys.at;
      if (begin < keys.at) {
        complete<K, W>(table, ref);
        const auto row_of = [&](int64_t k) { return grad + (keys.keys[begin + k] & position) * dim; };
        pack_gradient<K>(ref, dim, chunks, keys.at - begin, row_of, out);
      } else {
        for (uint32_t c = 0; c < ref.count; c += 16) store(out + c, F16(0.0f));
      }
    }
    block.rows[block.size++] = RowUpdate{row, ref.start, ref.count, out};
    out += ref.count;
  }
}

using CollectRows = void (*)(const OptimizerStepArgs& args, RowKeys& keys, int64_t first, int64_t last, uint64_t* start,
                             RowBlock& block);

template <class T, class Step>
static void all_rows(const OptimizerStepArgs& args, const Step& step, CollectRows collect, RowKeys keys, int64_t begin,
                     int64_t end) {
  constexpr bool kRuns = !Step::kRowState && std::is_same_v<T, float>;
  uint64_t start = values_before(args.table, begin);
  if constexpr (kRuns) {
    if (args.form == GradientForm::packed && args.grad_type == ValueType::float32) {
      const int64_t count = static_cast<int64_t>(values_before(args.table, end) - start);
      update_run(step, static_cast<float*>(args.values), args.state, start, count,
                 static_cast<const float*>(args.grad) + start);
      return;
    }
  }
  const RoundingStep rounding = rounding_step(args.seed, args.step);
  RowBlock block;
  for (int64_t first = begin; first < end; first += kBlockRows) {
    const uint64_t block_start = start;
    collect(args, keys, first, first + kBlockRows < end ? first + kBlockRows : end, &start, block);
    if constexpr (kRuns) {
      update_run(step, static_cast<float*>(args.values), args.state, block_start,
                 static_cast<int64_t>(start - block_start), block.gradients);
    } else {
      apply_block<T>(args, step, rounding, false, block);
    }
  }
}

// ---- choice of the variant -------------------------------------------------------------------------------------------

// Sixteen-bit gradients are rarer: one variant for all widths.
template <class G, IndexKind K>
static CollectKeys collect_keys_width(int words) {
  if constexpr (std::is_same_v<G, float>) {
    if (words == 2) return collect_keys<G, K, 2>;
    if (words == 4) return collect_keys<G, K, 4>;
  }
  return collect_keys<G, K, 0>;
}
template <class G, IndexKind K>
static CollectRows collect_rows_width(int words) {
  if constexpr (std::is_same_v<G, float>) {
    if (words == 2) return collect_rows<G, K, 2>;
    if (words == 4) return collect_rows<G, K, 4>;
  }
  return collect_rows<G, K, 0>;
}

template <class G>
static CollectKeys collect_keys_kind(const Layout& layout) {
  const int words = mask_words(layout.dim);
  switch (layout.kind) {
    case IndexKind::full: return collect_keys_width<G, IndexKind::full>(words);
    case IndexKind::prefix: return collect_keys_width<G, IndexKind::prefix>(words);
    case IndexKind::bits: return collect_keys_width<G, IndexKind::bits>(words);
    default: return collect_keys_width<G, IndexKind::cols8>(words);
  }
}
template <class G>
static CollectRows collect_rows_kind(const Layout& layout) {
  const int words = mask_words(layout.dim);
  switch (layout.kind) {
    case IndexKind::full: return collect_rows_width<G, IndexKind::full>(words);
    case IndexKind::prefix: return collect_rows_width<G, IndexKind::prefix>(words);
    case IndexKind::bits: return collect_rows_width<G, IndexKind::bits>(words);
    default: return collect_rows_width<G, IndexKind::cols8>(words);
  }
}

template <class Body>
static void with_type(ValueType type, Body&& body) {
  switch (type) {
    case ValueType::float16: return body(Half{});
    case ValueType::bfloat16: return body(BFloat16{});
    default: return body(float{});
  }
}

static void optimizer_lazy(const OptimizerStepArgs& args, RowKeys keys, bool far) {
  CollectKeys collect = nullptr;
  with_type(args.grad_type, [&](auto g) { collect = collect_keys_kind<decltype(g)>(args.table.layout); });
  with_type(args.value_type, [&](auto t) {
    with_step(args.options, args.step, true,
              [&](const auto& step) { lazy_rows<decltype(t)>(args, step, collect, keys, far); });
  });
}

static void optimizer_full(const OptimizerStepArgs& args, RowKeys keys, int64_t begin, int64_t end) {
  CollectRows collect = nullptr;
  with_type(args.grad_type, [&](auto g) { collect = collect_rows_kind<decltype(g)>(args.table.layout); });
  with_type(args.value_type, [&](auto t) {
    with_step(args.options, args.step, args.lazy,
              [&](const auto& step) { all_rows<decltype(t)>(args, step, collect, keys, begin, end); });
  });
}

}  // namespace recsparse::RS_ISA
