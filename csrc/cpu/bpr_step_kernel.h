// bpr_step_ for one instruction set; see bpr_step.h for the two passes. Include after an isa_*.h.
#pragma once

#include "cpu/bpr_step.h"
#include "cpu/update_row.h"
#include "cpu/vector_math.h"

namespace recsparse::RS_ISA {

constexpr int kTripleAhead = 8;   // the rows of triple t + 8 and the index lines of triple t + 16 are on their way
constexpr int kUpdateAhead = 12;  // the weights and state of key k + 12, the record of key k + 24

template <int W>
struct Triple {
  int64_t number;  // within the batch
  RowRef<W> user, pos, neg;
};

// Where pass 1 writes the vectors of one chunk of triples.
struct RecordWriter {
  float* spill_begin;
  float* spill;
  uint32_t room;  // floats in a record

  // Starts the record of a row and returns where its vector goes.
  RS_INLINE_MEMBER float* begin(BprRecord* record, uint64_t start, uint32_t count) {
    record->start = start;
    record->count = count;
    if (__builtin_expect(count <= room, 1)) return record->data;
    const uint64_t offset = static_cast<uint64_t>(spill - spill_begin);
    std::memcpy(record->data, &offset, sizeof(offset));
    float* out = spill;
    spill += count;
    return out;
  }
};

RS_INLINE const float* record_vector(const BprBatch& batch, const BprRecord* record, uint32_t room) {
  if (__builtin_expect(record->count <= room, 1)) return record->data;
  uint64_t offset;
  std::memcpy(&offset, record->data, sizeof(offset));
  return batch.spill + offset;
}

// Appends the lanes of `mask` at p and moves p on.
RS_INLINE void append(float*& p, F16 a, uint32_t mask) {
  const int kept = popcount64(mask);
  store(p, compress(a, mask), static_cast<uint32_t>(low_bits(kept)));
  p += kept;
}

// s_neg - s_pos of one triple, and the vectors of its three records.
template <class T, IndexKind K, int W>
RS_INLINE float score_triple(const T* values, int dim, bool far, const Triple<W>& rows, RecordWriter& writer,
                             BprRecord* record_u, BprRecord* record_i, BprRecord* record_j) {
  const T* u = values + rows.user.start;
  const T* i = values + rows.pos.start;
  const T* j = values + rows.neg.start;
  float* out_u = writer.begin(record_u, rows.user.start, rows.user.count);
  float* out_i = writer.begin(record_i, rows.pos.start, rows.pos.count);
  float* out_j = writer.begin(record_j, rows.neg.start, rows.neg.count);
  if constexpr (K == IndexKind::bits || K == IndexKind::cols8) {
    // Short rows meet in few columns: they are compared packed, work grows with the kept weights and not with dim.
    if (rows.user.count <= 16 && rows.pos.count <= 16 && rows.neg.count <= 16) {
      constexpr int kMask = RowRef<W>::kMaskWords64;
      const int count_u = static_cast<int>(rows.user.count), count_i = static_cast<int>(rows.pos.count);
      const int count_j = static_cast<int>(rows.neg.count);
      const F16 user = load_values(u, count_u, far), pos = load_values(i, count_i, far);
      const F16 neg = load_values(j, count_j, far);
      const Overlap with_pos = overlap<kMask>(user, rows.user.mask, pos, rows.pos.mask);
      const Overlap with_neg = overlap<kMask>(user, rows.user.mask, neg, rows.neg.mask);
      const F16 partner = with_neg.b_at_a - with_pos.b_at_a;
      // Not into the line behind a record: that is another one, which another core may be writing.
      store_first(out_u, partner, count_u);
      store_first(out_i, F16(0.0f) - with_pos.a_at_b, count_i);
      store_first(out_j, with_neg.a_at_b, count_j);
      return reduce_add(user * partner);
    }
  }
  constexpr int kChunks = W ? 2 * W : kMaxDim / 16;
  const int chunks = chunk_count<W>(dim);
  F16 user[kChunks], partner[kChunks];
  F16 dot(0.0f);
  for (int c = 0; c < chunks; ++c) {
    const uint32_t mask_u = chunk_mask(rows.user, c), mask_i = chunk_mask(rows.pos, c);
    const uint32_t mask_j = chunk_mask(rows.neg, c);
    user[c] = load_chunk<K>(u, mask_u, far);
    partner[c] = load_chunk<K>(j, mask_j, far) - load_chunk<K>(i, mask_i, far);
    dot = fma(user[c], partner[c], dot);
    u += popcount64(mask_u);
    i += popcount64(mask_i);
    j += popcount64(mask_j);
  }
  for (int c = 0; c < chunks; ++c) append(out_u, partner[c], chunk_mask(rows.user, c));
  for (int c = 0; c < chunks; ++c) append(out_i, F16(0.0f) - user[c], chunk_mask(rows.pos, c));
  for (int c = 0; c < chunks; ++c) append(out_j, user[c], chunk_mask(rows.neg, c));
  return reduce_add(dot);
}

// Triples in the order of their users, which is that of the first `count` sorted keys: the thread that scores a user is
// the one that will update it, so neither its weights nor its records change cores.
template <class T, IndexKind K, int W>
static void bpr_score_rows(const BprBatch& batch, int64_t begin, int64_t end) {
  const TableView table = batch.args->table;
  const T* values = static_cast<const T*>(batch.args->values);
  const int64_t item_offset = batch.args->item_offset;
  const int dim = table.layout.dim;
  const uint32_t room = static_cast<uint32_t>(batch.record_bytes / 4 - 4);
  const uint64_t occurrence = low_bits(batch.shift);
  Triple<W> ring[kTripleAhead];
  const auto triple_at = [&](int64_t p) { return static_cast<int64_t>((batch.keys[p] & occurrence) / 3); };
  const auto fetch_index = [&](int64_t p) {
    if (K == IndexKind::full) return;
    const int64_t t = triple_at(p);
    prefetch(index_line<K, W>(table, batch.users[t]));
    prefetch(index_line<K, W>(table, item_offset + batch.pos[t]));
    prefetch(index_line<K, W>(table, item_offset + batch.neg[t]));
  };
  const auto fetch_row = [&](RowRef<W>& ref, int64_t row) {
    ref = locate<K, W, Rank>(table, row);
    prefetch_span(values + ref.start, ref.count);
    if (K == IndexKind::cols8) prefetch_span(table.cols + ref.start, ref.count);
  };
  const auto fetch_rows = [&](int64_t p) {
    Triple<W>& rows = ring[p % kTripleAhead];
    const int64_t t = triple_at(p);
    rows.number = t;
    fetch_row(rows.user, batch.users[t]);
    fetch_row(rows.pos, item_offset + batch.pos[t]);
    fetch_row(rows.neg, item_offset + batch.neg[t]);
    for (int role = 0; role < 3; ++role) prefetch_write(batch.record(3 * t + role));
  };
  for (int64_t p = begin; p < end && p < begin + 2 * kTripleAhead; ++p) fetch_index(p);
  for (int64_t p = begin; p < end && p < begin + kTripleAhead; ++p) fetch_rows(p);

  for (int64_t chunk_begin = begin; chunk_begin < end; chunk_begin += kBprChunk) {
    const int64_t chunk = chunk_begin / kBprChunk;
    const int64_t chunk_end = chunk_begin + kBprChunk < end ? chunk_begin + kBprChunk : end;
    alignas(64) float difference[kBprChunk];  // s_neg - s_pos
    BprRecord* records[kBprChunk];            // the first of each triple's three
    RecordWriter writer{batch.spill, batch.spill + chunk * batch.spill_stride, room};
    for (int64_t p = chunk_begin; p < chunk_end; ++p) {
      if (p + 2 * kTripleAhead < end) fetch_index(p + 2 * kTripleAhead);
      Triple<W>& rows = ring[p % kTripleAhead];
      complete<K, W>(table, rows.user);
      complete<K, W>(table, rows.pos);
      complete<K, W>(table, rows.neg);
      records[p - chunk_begin] = batch.record(3 * rows.number);
      difference[p - chunk_begin] =
          score_triple<T, K, W>(values, dim, batch.far, rows, writer, records[p - chunk_begin],
                                batch.record(3 * rows.number + 1), batch.record(3 * rows.number + 2));
      if (p + kTripleAhead < end) fetch_rows(p + kTripleAhead);
    }
    double loss = 0;
    for (int64_t p = 0; p < chunk_end - chunk_begin; p += 16) {
      const int live = chunk_end - chunk_begin - p < 16 ? static_cast<int>(chunk_end - chunk_begin - p) : 16;
      const LogisticLoss out = logistic_loss(load(difference + p, static_cast<uint32_t>(low_bits(live))));
      alignas(64) float softplus[16], coefficient[16];
      store(softplus, out.softplus);
      store(coefficient, out.sigmoid * F16(batch.inverse_count));
      for (int k = 0; k < live; ++k) {
        loss += softplus[k];
        char* record = reinterpret_cast<char*>(records[p + k]);
        for (int role = 0; role < 3; ++role) {
          reinterpret_cast<BprRecord*>(record + role * batch.record_bytes)->coefficient = coefficient[k];
        }
      }
    }
    batch.chunk_loss[chunk] = loss;
  }
}

template <class T, class Step>
static void bpr_update_rows(const BprBatch& batch, const Step& step, int64_t begin, int64_t end) {
  T* values = static_cast<T*>(batch.args->values);
  float* state = batch.args->state;
  const uint64_t* keys = batch.keys;
  const int shift = batch.shift;
  const uint64_t occurrence = low_bits(shift);
  const uint32_t room = static_cast<uint32_t>(batch.record_bytes / 4 - 4);
  const float decay = batch.args->l2 * batch.inverse_count;
  const auto record_at = [&](int64_t k) { return batch.record(keys[k] & occurrence); };
  const auto fetch_row = [&](int64_t k) {
    const BprRecord* record = record_at(k);
    prefetch_span<true>(values + record->start, record->count);
    if (Step::kState) prefetch_span<true, 3>(state + Step::kState * record->start, Step::kState * record->count);
    if (Step::kRowState) prefetch_write(state + (keys[k] >> shift));
  };
  for (int64_t k = begin; k < end && k < begin + 2 * kUpdateAhead; ++k) prefetch(record_at(k));
  for (int64_t k = begin; k < end && k < begin + kUpdateAhead; ++k) fetch_row(k);
  for (int64_t k = begin; k < end;) {
    const int64_t row = static_cast<int64_t>(keys[k] >> shift);
    int64_t next = k;
    do {
      if (next + 2 * kUpdateAhead < end) prefetch(record_at(next + 2 * kUpdateAhead));
      if (next + kUpdateAhead < end) fetch_row(next + kUpdateAhead);
      ++next;
    } while (next < end && static_cast<int64_t>(keys[next] >> shift) == row);
    const BprRecord* first = record_at(k);
    const F16 pull(decay * static_cast<float>(next - k));
    const auto gradient = [&](uint32_t c, F16 weight) {
      const int n = first->count - c < 16 ? static_cast<int>(first->count - c) : 16;
      F16 sum = load_first(record_vector(batch, first, room) + c, n) * F16(first->coefficient);
      for (int64_t o = k + 1; o < next; ++o) {
        const BprRecord* record = record_at(o);
        sum = fma(load_first(record_vector(batch, record, room) + c, n), F16(record->coefficient), sum);
      }
      return fma(weight, pull, sum);
    };
    update_row(step, values, state, row, first->start, first->count, batch.far, rounding_key(batch.rounding, row),
               gradient);
    k = next;
  }
}

template <class T>
static void bpr_update(const BprBatch& batch, int64_t begin, int64_t end) {
  with_step(batch.args->optimizer, batch.step, true,
            [&](const auto& step) { bpr_update_rows<T>(batch, step, begin, end); });
}

template <class T, IndexKind K>
static void bpr_score_width(const BprBatch& batch, int64_t begin, int64_t end) {
  switch (mask_words(batch.args->table.layout.dim)) {
    case 2: return bpr_score_rows<T, K, 2>(batch, begin, end);
    case 4: return bpr_score_rows<T, K, 4>(batch, begin, end);
    default: return bpr_score_rows<T, K, 0>(batch, begin, end);
  }
}

template <class T>
static void bpr_score(const BprBatch& batch, int64_t begin, int64_t end) {
  switch (batch.args->table.layout.kind) {
    case IndexKind::full: return bpr_score_width<T, IndexKind::full>(batch, begin, end);
    case IndexKind::prefix: return bpr_score_width<T, IndexKind::prefix>(batch, begin, end);
    case IndexKind::bits: return bpr_score_width<T, IndexKind::bits>(batch, begin, end);
    default: return bpr_score_width<T, IndexKind::cols8>(batch, begin, end);
  }
}

}  // namespace recsparse::RS_ISA
