#include "cpu/sample.h"

#include <algorithm>
#include <atomic>

#include "cpu/prefetch.h"

namespace recsparse::cpu {
namespace {

constexpr int64_t kChunk = 8192;  // draws a task: fixed, whatever the number of threads
constexpr int kBatch = 32;        // draws in flight: enough to overlap their cache misses

// One batch goes through stages; each stage prefetches what the next one reads.
struct Batch {
  int size;
  Philox4 random[kBatch];
  int64_t row[kBatch];
  int64_t pos[kBatch];  // place in items
};

struct EpochShuffle {
  int64_t epoch = -1;
  ShuffleKeys keys{};
};

uint64_t word64(const Philox4& r) { return uint64_t{r.w[1]} << 32 | r.w[0]; }

void choose_rows(const SampleArgs& args, Batch& batch) {
  for (int i = 0; i < batch.size; ++i) {
    const int64_t row = static_cast<int64_t>(bounded64(word64(batch.random[i]), static_cast<uint64_t>(args.n_rows)));
    batch.row[i] = row;
    prefetch(args.indptr + row);
    prefetch(args.users + row);
  }
}

void choose_positives(const SampleArgs& args, Batch& batch) {
  for (int i = 0; i < batch.size; ++i) {
    const int64_t begin = args.indptr[batch.row[i]];
    const uint32_t degree = static_cast<uint32_t>(args.indptr[batch.row[i] + 1] - begin);
    batch.pos[i] = begin + bounded32(batch.random[i].w[2], degree);
  }
}

void choose_interactions(const SampleArgs& args, int64_t first, int bits, EpochShuffle& shuffle, Batch& batch) {
  for (int i = 0; i < batch.size; ++i) {
    const int64_t epoch = (first + i) / args.nnz;
    if (epoch != shuffle.epoch) shuffle = {epoch, shuffle_keys(args.seed, static_cast<uint64_t>(epoch))};
    const uint64_t position = static_cast<uint64_t>((first + i) % args.nnz);
    batch.pos[i] = static_cast<int64_t>(shuffled(position, static_cast<uint64_t>(args.nnz), bits, shuffle.keys));
    batch.row[i] = row_of(args.indptr, args.n_rows, batch.pos[i]);
  }
}

// Row to report, or -1. Keeps every later access inside the arrays even if the caller broke the contract.
int64_t bad_row(const SampleArgs& args, const Batch& batch) {
  for (int i = 0; i < batch.size; ++i) {
    const int64_t begin = args.indptr[batch.row[i]], end = args.indptr[batch.row[i] + 1];
    if (begin < 0 || end <= begin || end > args.nnz || end - begin >= args.n_items) return batch.row[i];
    prefetch(args.items + begin + (end - begin) / 2);
  }
  return -1;
}

void finish(const SampleArgs& args, const Batch& batch, int64_t offset, const SampleOut& out) {
  for (int i = 0; i < batch.size; ++i) {
    const int64_t begin = args.indptr[batch.row[i]];
    const int64_t degree = args.indptr[batch.row[i] + 1] - begin;
    const uint32_t absent = static_cast<uint32_t>(args.n_items - degree);
    out.users[offset + i] = args.users[batch.row[i]];
    out.pos[offset + i] = args.items[batch.pos[i]];
    out.neg[offset + i] = absent_id(args.items + begin, degree, bounded32(batch.random[i].w[3], absent));
  }
}

// Draws [begin, end) of the call; the first bad row or -1.
int64_t sample_chunk(const SampleArgs& args, int64_t begin, int64_t end, const SampleOut& out) {
  const int bits = bits_for(static_cast<uint64_t>(args.nnz));
  EpochShuffle shuffle;
  Batch batch;
  for (int64_t offset = begin; offset < end; offset += kBatch) {
    batch.size = static_cast<int>(std::min<int64_t>(kBatch, end - offset));
    const int64_t first = args.start + offset;
    for (int i = 0; i < batch.size; ++i)
      batch.random[i] = philox(args.seed, static_cast<uint64_t>(first + i), 0, kStreamSample);
    if (args.mode == SampleMode::users) {
      choose_rows(args, batch);
    } else {
      choose_interactions(args, first, bits, shuffle, batch);
    }
    const int64_t bad = bad_row(args, batch);
    if (bad >= 0) return bad;
    if (args.mode == SampleMode::users) choose_positives(args, batch);
    finish(args, batch, offset, out);
  }
  return -1;
}

bool contains(const uint32_t* values, int count, uint32_t wanted) {
  int found = 0;
  for (int i = 0; i < count; ++i) found |= values[i] == wanted;
  return found != 0;
}

// A place that is none of the user's: a few independent tries, then the next free place.
uint32_t absent_place(const SyntheticSpec& spec, const uint32_t* places, int degree, uint64_t draw, uint32_t random) {
  constexpr uint32_t kTries = 4;
  const uint32_t n_items = static_cast<uint32_t>(spec.n_items);
  uint32_t place = bounded32(random, n_items);
  for (uint32_t attempt = 1; contains(places, degree, place); ++attempt) {
    if (attempt < kTries) {
      place = bounded32(philox(spec.seed, draw, attempt, kStreamSample).w[0], n_items);
    } else {
      place = place + 1 == n_items ? 0 : place + 1;
    }
  }
  return place;
}

void sample_synthetic_chunk(const SyntheticSpec& spec, int64_t start, int64_t begin, int64_t end,
                            const SampleOut& out) {
  uint32_t places[kMaxSyntheticDegree + 1];
  for (int64_t offset = begin; offset < end; ++offset) {
    const uint64_t draw = static_cast<uint64_t>(start + offset);
    const Philox4 r = philox(spec.seed, draw, 0, kStreamSample);
    const uint64_t user = bounded64(word64(r), static_cast<uint64_t>(spec.n_users));
    const SyntheticUser profile = synthetic_user(spec, user);
    for (int pair = 0; 2 * pair < profile.degree; ++pair) {
      synthetic_pair(spec, profile, user, static_cast<uint32_t>(pair), places + 2 * pair);
    }
    const uint32_t positive = places[bounded32(r.w[2], static_cast<uint32_t>(profile.degree))];
    out.users[offset] = static_cast<int64_t>(user);
    out.pos[offset] = synthetic_item(spec, positive);
    out.neg[offset] = synthetic_item(spec, absent_place(spec, places, profile.degree, draw, r.w[3]));
  }
}

}  // namespace

int64_t sample(const SampleArgs& args, const SampleOut& out) {
  const int64_t chunks = (args.count + kChunk - 1) / kChunk;
  std::atomic<int64_t> bad{INT64_MAX};
#pragma omp parallel for schedule(dynamic) num_threads(args.threads)
  for (int64_t c = 0; c < chunks; ++c) {
    const int64_t row = sample_chunk(args, c * kChunk, std::min(args.count, (c + 1) * kChunk), out);
    int64_t lowest = bad.load();
    while (row >= 0 && row < lowest && !bad.compare_exchange_weak(lowest, row)) {
    }
  }
  return bad.load() == INT64_MAX ? -1 : bad.load();
}

void sample_synthetic(const SyntheticSpec& spec, int64_t start, int64_t count, int threads, const SampleOut& out) {
  const int64_t chunks = (count + kChunk - 1) / kChunk;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t c = 0; c < chunks; ++c) {
    sample_synthetic_chunk(spec, start, c * kChunk, std::min(count, (c + 1) * kChunk), out);
  }
}

}  // namespace recsparse::cpu
