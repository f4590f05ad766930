#include "cpu/bpr_step.h"

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "cpu/barrier.h"
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/prefetch.h"
#include "cpu/row_sort.h"

namespace recsparse {

using BprKernels = BprKernel[kValueTypes];
RS_CPU_VARIANTS(BprKernels, bpr_kernels);

namespace {

// The scratch of a call: one set for the batch in work, and the sorted keys of `threads` batches, because each thread
// sorts a batch of its own while the others do theirs.
struct Workspace {
  char* records;
  float* spill;
  double* chunk_loss;
  uint64_t* keys;  // per batch of a group: 2 * 3 * batch words
  int64_t record_bytes;
  int64_t spill_stride;
  int64_t bytes;
};

Workspace carve(const BprStepArgs& args, int threads) {
  const int64_t batch = args.batch_size < args.count ? args.batch_size : args.count;
  const int64_t chunks = (batch + kBprChunk - 1) / kBprChunk;
  Workspace work;
  char* p = static_cast<char*>(args.workspace);
  const auto take = [&](int64_t bytes) {
    char* here = p;
    p += (bytes + 63) / 64 * 64;
    return here;
  };
  const int64_t dim = args.table.layout.dim;
  // Room for 1.5 times the mean row and a little more: with random masks about 2 rows in 100 spill.
  const int64_t rows = args.table.layout.rows > 0 ? args.table.layout.rows : 1;
  const int64_t room = std::min(dim, (3 * args.capacity / rows) / 2 + 2);
  work.record_bytes = (offsetof(BprRecord, data) + 4 * room + 63) / 64 * 64;
  work.spill_stride = 3 * kBprChunk * dim;
  work.records = take(3 * batch * work.record_bytes);
  work.spill = reinterpret_cast<float*>(take(chunks * work.spill_stride * sizeof(float)));
  work.chunk_loss = reinterpret_cast<double*>(take(chunks * sizeof(double)));
  work.keys = reinterpret_cast<uint64_t*>(take(threads * 6 * batch * sizeof(uint64_t)));
  work.bytes = p - static_cast<char*>(args.workspace);
  return work;
}

}  // namespace

int64_t bpr_step_workspace_bytes(const BprStepArgs& args, int threads) { return carve(args, threads).bytes; }

int64_t find_bad_id(const int64_t* ids, int64_t count, int64_t limit, int threads) {
  std::atomic<int64_t> first{count};
  parallel_for(count, 1 << 14, threads, [&](int64_t begin, int64_t end) {
    bool bad = false;
    for (int64_t i = begin; i < end; ++i) bad |= static_cast<uint64_t>(ids[i]) >= static_cast<uint64_t>(limit);
    if (!bad) return;
    int64_t i = begin;
    while (static_cast<uint64_t>(ids[i]) < static_cast<uint64_t>(limit)) ++i;
    int64_t seen = first.load();
    while (i < seen && !first.compare_exchange_weak(seen, i)) {
    }
  });
  return first.load() == count ? -1 : first.load();
}

void bpr_step(const BprStepArgs& args, int threads) {
  if (args.count == 0) return;
  const BprKernel& kernel = bpr_kernels()[static_cast<int>(args.value_type)];
  const int64_t batches = (args.count + args.batch_size - 1) / args.batch_size;
  const Workspace work = carve(args, threads);
  const int64_t full = args.batch_size < args.count ? args.batch_size : args.count;
  const int shift = bits_for(static_cast<uint64_t>(3 * full));
  const int row_bits = bits_for(static_cast<uint64_t>(args.table.layout.rows));

  const int64_t weight_bytes = value_bytes(args.value_type) + 4 * state_per_weight(args.optimizer.kind);
  const int64_t bytes = weight_bytes * args.capacity + 8 * index_words(args.table.layout);
  const bool far = is_far(bytes);

  const auto batch_of = [&](int64_t b) {
    BprBatch batch;
    const int64_t begin = b * args.batch_size;
    batch.args = &args;
    batch.users = args.users + begin;
    batch.pos = args.pos + begin;
    batch.neg = args.neg + begin;
    batch.count = args.count - begin < args.batch_size ? args.count - begin : args.batch_size;
    batch.step = args.step + b + 1;
    batch.rounding = rounding_step(args.seed, batch.step);
    batch.inverse_count = 1.0f / static_cast<float>(batch.count);
    batch.far = far;
    batch.records = work.records;
    batch.record_bytes = work.record_bytes;
    batch.spill = work.spill;
    batch.spill_stride = work.spill_stride;
    batch.chunk_loss = work.chunk_loss;
    batch.keys = nullptr;
    batch.shift = shift;
    return batch;
  };
  const uint64_t* sorted[256];
  if (threads > 256) threads = 256;

  Barrier barrier(threads);
  parallel_region(threads, [&](int rank) {
    for (int64_t group = 0; group < batches; group += threads) {
      if (group + rank < batches) {
        const BprBatch batch = batch_of(group + rank);
        uint64_t* keys = work.keys + rank * 6 * full;
        for (int64_t t = 0; t < batch.count; ++t) {
          const uint64_t occurrence = static_cast<uint64_t>(3 * t);
          keys[3 * t] = static_cast<uint64_t>(batch.users[t]) << shift | occurrence;
          keys[3 * t + 1] = static_cast<uint64_t>(args.item_offset + batch.pos[t]) << shift | (occurrence + 1);
          keys[3 * t + 2] = static_cast<uint64_t>(args.item_offset + batch.neg[t]) << shift | (occurrence + 2);
        }
        sorted[rank] = radix_sort(keys, keys + 3 * full, 3 * batch.count, shift, row_bits);
      }
      barrier.wait();
      for (int64_t b = group; b < batches && b < group + threads; ++b) {
        BprBatch batch = batch_of(b);
        batch.keys = sorted[b - group];
        const Range triples = static_range(batch.count, kBprChunk, rank, threads);
        if (triples.begin < triples.end) kernel.score(batch, triples.begin, triples.end);
        barrier.wait();
        // Users and items are shared out apart, so that each thread keeps to its own users in both passes.
        const auto update = [&](int64_t first, int64_t count) {
          const int64_t last = first + count;
          const int64_t begin = row_boundary(batch.keys, last, shift, first + count * rank / threads);
          const int64_t end = row_boundary(batch.keys, last, shift, first + count * (rank + 1) / threads);
          if (begin < end) kernel.update(batch, begin, end);
        };
        update(0, batch.count);
        update(batch.count, 2 * batch.count);
        if (rank == 0) {
          double sum = 0;
          for (int64_t c = 0; c * kBprChunk < batch.count; ++c) sum += work.chunk_loss[c];
          args.loss[b] = static_cast<float>(sum / static_cast<double>(batch.count));
        }
        barrier.wait();
      }
    }
  });
}

}  // namespace recsparse
