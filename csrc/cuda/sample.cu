#include "cuda/errors.cuh"
#include "cuda/sample.h"

namespace recsparse::cuda {
namespace {

// Grid: grid_for(count), one draw a thread and stride: every draw is a chain of dependent accesses (row, positives, a
// bisection of them), so what counts is how many threads wait at once. Bytes moved, a draw: some 32 of indptr and users,
// log2(degree) sectors of items, 24 written.
__global__ void __launch_bounds__(kThreads) sample_kernel(SampleArgs args) {
  const int bits = bits_for(static_cast<uint64_t>(args.nnz));
  for (int64_t i = global_thread(); i < args.count; i += global_threads()) {
    const uint64_t draw = static_cast<uint64_t>(args.start + i);
    const Philox4 random = philox(args.seed, draw, 0, kStreamSample);
    int64_t row, place = 0;
    if (args.mode == SampleMode::users) {
      const uint64_t word = static_cast<uint64_t>(random.w[1]) << 32 | random.w[0];
      row = static_cast<int64_t>(bounded64(word, static_cast<uint64_t>(args.n_rows)));
    } else {
      const uint64_t nnz = static_cast<uint64_t>(args.nnz), epoch = draw / nnz;
      place = static_cast<int64_t>(shuffled(draw % nnz, nnz, bits, shuffle_keys(args.seed, epoch)));
      row = row_of(args.indptr, args.n_rows, place);
    }
    const int64_t begin = args.indptr[row], end = args.indptr[row + 1], degree = end - begin;
    // Keeps every later access inside the arrays even if the caller broke the contract.
    if (begin < 0 || degree <= 0 || end > args.nnz || degree >= args.n_items) {
      report(args.bad_row, i, row);
      args.out_users[i] = args.out_pos[i] = args.out_neg[i] = 0;
      continue;
    }
    if (args.mode == SampleMode::users) place = begin + bounded32(random.w[2], static_cast<uint32_t>(degree));
    args.out_users[i] = args.users[row];
    args.out_pos[i] = args.items[place];
    const uint32_t absent = bounded32(random.w[3], static_cast<uint32_t>(args.n_items - degree));
    args.out_neg[i] = absent_id(args.items + begin, degree, absent);
  }
}

// Whether `place` is one of the user's. The interactions are drawn anew: kept in an array they would lie in memory.
__device__ __forceinline__ bool has_place(const SyntheticSpec& spec, const SyntheticUser& profile, uint64_t user,
                                          uint32_t place) {
  bool found = false;
  for (int pair = 0; 2 * pair < profile.degree; ++pair) {
    uint32_t places[2];
    synthetic_pair(spec, profile, user, static_cast<uint32_t>(pair), places);
    found = found || places[0] == place || (2 * pair + 1 < profile.degree && places[1] == place);
  }
  return found;
}

// Grid: grid_for(count), one draw a thread and stride. Nothing is read: arithmetic, about ten Philox blocks a draw and as many
// again for every try of a negative. Bytes moved: 24 written a draw.
__global__ void __launch_bounds__(kThreads) sample_synthetic_kernel(SampleSyntheticArgs args) {
  const SyntheticSpec& spec = args.spec;
  constexpr uint32_t kTries = 4;  // of cpu/sample.cpp
  const uint32_t n_items = static_cast<uint32_t>(spec.n_items);
  for (int64_t i = global_thread(); i < args.count; i += global_threads()) {
    const uint64_t draw = static_cast<uint64_t>(args.start + i);
    const Philox4 random = philox(spec.seed, draw, 0, kStreamSample);
    const uint64_t word = static_cast<uint64_t>(random.w[1]) << 32 | random.w[0];
    const uint64_t user = bounded64(word, static_cast<uint64_t>(spec.n_users));
    const SyntheticUser profile = synthetic_user(spec, user);
    const uint32_t chosen = bounded32(random.w[2], static_cast<uint32_t>(profile.degree));
    uint32_t places[2];
    synthetic_pair(spec, profile, user, chosen / 2, places);
    uint32_t absent = bounded32(random.w[3], n_items);
    for (uint32_t attempt = 1; has_place(spec, profile, user, absent); ++attempt) {
      absent = attempt < kTries        ? bounded32(philox(spec.seed, draw, attempt, kStreamSample).w[0], n_items)
               : absent + 1 == n_items ? 0
                                       : absent + 1;
    }
    args.out_users[i] = static_cast<int64_t>(user);
    args.out_pos[i] = synthetic_item(spec, chosen % 2 ? places[1] : places[0]);
    args.out_neg[i] = synthetic_item(spec, absent);
  }
}

}  // namespace

const char* sample_synthetic(const SampleSyntheticArgs& args, void* stream) {
  launch("sample_synthetic", sample_synthetic_kernel, grid_for(args.count, kThreads), kThreads, stream, args);
  return launch_error();
}

const char* sample(const SampleArgs& args, void* stream) {
  launch("sample", sample_kernel, grid_for(args.count, kThreads), kThreads, stream, args);
  return launch_error();
}

}  // namespace recsparse::cuda
