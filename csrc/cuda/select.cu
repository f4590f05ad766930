#include "cuda/errors.cuh"
#include "cuda/select.h"
#include "cuda/table.cuh"

namespace recsparse::cuda {
namespace {

constexpr int kDigitBits = 11, kBuckets = 1 << kDigitBits;
// Weights share few exponents, so most lanes of a warp would count in the same few buckets: lanes take turns of four copies.
// 32 KB of shared memory a block, six blocks a multiprocessor.
constexpr int kCopies = 4, kBlocks = 6;

struct SelectScratch {
  uint64_t* counts;  // [kBuckets]
  int64_t* left;     // [1] rank of the wanted key among those that agree so far
  uint32_t* prefix;  // [1] the digits found so far, in place
};

SelectScratch carve(Workspace& space) {
  return SelectScratch{space.take<uint64_t>(kBuckets), space.take<int64_t>(1), space.take<uint32_t>(1)};
}

struct Digit {
  int low, bits;   // of a key
  uint32_t above;  // mask of the digits above it
};

struct Histogram {
  uint32_t counts[kCopies][kBuckets];
};

// Grid: six blocks a multiprocessor; a thread reads four vectors of 16 bytes, 64 bytes in flight, so 1,536 threads have
// 96 KB. Bytes moved: the keys, once a pass.
template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? kBlocks : 4)
    select_count_kernel(const T* keys, const SelectState* state, uint32_t mask, uint32_t infinity, Digit digit,
                        bool whole, SelectScratch scratch, ErrorSite nan) {
  Histogram& own = shared<Histogram>();
  uint32_t* flat = &own.counts[0][0];
  for (int i = threadIdx.x; i < kCopies * kBuckets; i += kThreads) flat[i] = 0;
  __syncthreads();
  uint32_t* counts = own.counts[threadIdx.x % kCopies];
  const int64_t count = state->count;
  const uint32_t prefix = digit.above ? *scratch.prefix : 0;
  constexpr int kVector = 16 / static_cast<int>(sizeof(T)), kUnroll = 4;
  constexpr int64_t kTile = int64_t{kThreads} * kVector * kUnroll;
  for (int64_t tile = blockIdx.x * kTile; tile < count; tile += gridDim.x * kTile) {
    Vector<T> held[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t at = tile + (u * kThreads + static_cast<int64_t>(threadIdx.x)) * kVector;
      const int columns = static_cast<int>(smaller(kVector, count - at));
      held[u] = load_vector(keys + at, columns, whole && columns == kVector);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t at = tile + (u * kThreads + static_cast<int64_t>(threadIdx.x)) * kVector;
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const uint32_t key = held[u].x[i] & mask;
        if (at + i >= count || (key & digit.above) != prefix) continue;
        if (digit.above == 0 && key > infinity) report(nan, at + i, 0);
        atomicAdd(counts + (key >> digit.low & ((1u << digit.bits) - 1)), 1u);
      }
    }
  }
  __syncthreads();
  for (int bucket = threadIdx.x; bucket < kBuckets; bucket += kThreads) {
    uint32_t sum = 0;
#pragma unroll
    for (int copy = 0; copy < kCopies; ++copy) sum += own.counts[copy][bucket];
    if (sum > 0) {
      atomicAdd(reinterpret_cast<unsigned long long*>(scratch.counts + bucket), static_cast<unsigned long long>(sum));
    }
  }
}

struct Sums {
  uint64_t of[kThreads];
};

// One block: the bucket with the wanted key, from the top; clears the counts. Thread t has the t-th highest eight buckets.
__global__ void __launch_bounds__(kThreads)
    select_find_kernel(SelectState* state, Digit digit, bool last, SelectScratch scratch) {
  constexpr int kOwn = kBuckets / kThreads;
  Sums& sums = shared<Sums>();
  const int top = kBuckets - 1 - static_cast<int>(threadIdx.x) * kOwn;
  uint64_t own[kOwn], sum = 0;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    own[i] = scratch.counts[top - i];
    sum += own[i];
  }
  const uint32_t prefix = digit.above ? *scratch.prefix : 0;
  const uint64_t wanted = static_cast<uint64_t>(digit.above ? *scratch.left : state->k);
  sums.of[threadIdx.x] = sum;
  __syncthreads();
  for (unsigned step = 1; step < kThreads; step *= 2) {
    const uint64_t before = threadIdx.x >= step ? sums.of[threadIdx.x - step] : 0;
    __syncthreads();
    sums.of[threadIdx.x] += before;
    __syncthreads();
  }
  uint64_t before = sums.of[threadIdx.x] - sum;
  if (state->k > 0 && before < wanted && wanted <= before + sum) {
    bool found = false;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      if (!found && wanted <= before + own[i]) {
        found = true;
        const uint32_t key = prefix | static_cast<uint32_t>(top - i) << digit.low;
        *scratch.prefix = key;
        *scratch.left = static_cast<int64_t>(wanted - before);
        if (last) {
          state->threshold = key;
          state->ties = static_cast<int64_t>(wanted - before);
        }
      }
      before += own[i];
    }
  }
  if (last && threadIdx.x == 0 && state->k == 0) {
    state->threshold = ~0u;
    state->ties = 0;
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) scratch.counts[top - i] = 0;
}

__global__ void select_begin_kernel(SelectState* state, int64_t count, int64_t k) {
  if (global_thread() == 0) *state = SelectState{count, k, 0, 0};
}

__global__ void select_end_kernel(const SelectState* state, ValueType type, void* threshold, int64_t* ties) {
  if (global_thread() != 0) return;
  const uint32_t found = state->k == 0 ? infinity_key(type) : state->threshold;
  if (type == ValueType::float32) {
    *static_cast<uint32_t*>(threshold) = found;
  } else {
    *static_cast<uint16_t*>(threshold) = static_cast<uint16_t>(found);
  }
  *ties = state->ties;
}

template <class T>
void select_digits(const SelectArgs& args, const SelectScratch& scratch, int bits, void* stream) {
  const uint32_t mask = bits == 32 ? ~0u : (1u << bits) - 1;
  const T* keys = static_cast<const T*>(args.keys);
  const int64_t blocks =
      smaller(grid_for(args.room, 64 / static_cast<int>(sizeof(T)) * kThreads), kBlocks * multiprocessors());
  for (int high = bits; high > 0;) {
    const int width = high < kDigitBits ? high : kDigitBits, low = high - width;
    const Digit digit{low, width, high == bits ? 0 : mask >> high << high};
    launch("select_count", select_count_kernel<T>, blocks, kThreads, stream, keys, args.state, mask, args.infinity,
           digit, reinterpret_cast<uintptr_t>(keys) % 16 == 0, scratch, args.nan);
    launch("select_find", select_find_kernel, 1, kThreads, stream, args.state, digit, low == 0, scratch);
    high = low;
  }
}

}  // namespace

int64_t select_workspace_bytes() {
  Workspace space(nullptr);
  carve(space);
  return space.bytes();
}

const char* select(const SelectArgs& args, void* stream) {
  Workspace space(args.workspace);
  const SelectScratch scratch = carve(space);
  clear(scratch.counts, kBuckets * sizeof(uint64_t), stream);
  switch (args.kind) {
    case SelectKeys::magnitudes32: select_digits<uint32_t>(args, scratch, 31, stream); break;
    case SelectKeys::magnitudes16: select_digits<uint16_t>(args, scratch, 15, stream); break;
    default: select_digits<uint32_t>(args, scratch, 32, stream);
  }
  return launch_error();
}

int64_t select_values_workspace_bytes() { return select_workspace_bytes() + 256; }

const char* select_values(const SelectValuesArgs& args, void* stream) {
  Workspace space(args.workspace);
  SelectState* state = space.take<SelectState>(1);
  launch("select_begin", select_begin_kernel, 1, 32, stream, state, args.count, args.k);
  const SelectKeys kind = args.type == ValueType::float32 ? SelectKeys::magnitudes32 : SelectKeys::magnitudes16;
  const SelectArgs inner{kind,
                         args.values,
                         args.count,
                         state,
                         infinity_key(args.type),
                         args.nan,
                         space.take<char>(select_workspace_bytes())};
  if (const char* error = select(inner, stream)) return error;
  launch("select_end", select_end_kernel, 1, 32, stream, state, args.type, args.threshold, args.ties);
  return launch_error();
}

}  // namespace recsparse::cuda
