// Decoding of rows by groups of lanes. G lanes of a warp share a row: together they load the row's index block once, a
// 64-bit word each, and rank it with popcounts and shuffles; then every lane owns some columns of the row.
//
// W is the number of 32-bit mask words that there is room for (2, 4 or 8), G a power of two. All 32 lanes of a warp call
// these functions together; a group without a row passes row = -1 and gets an empty one.
#pragma once

#include <cstring>

#include "core/half.h"
#include "core/row_layout.h"
#include "core/rows.h"
#include "cuda/launch.h"

namespace recsparse::cuda {

// A TableView with what a division by the rows of a block needs: q = mul_hi(row, magic) is exact for rows < 2^40.
struct DeviceTable {
  Layout layout;
  const uint64_t* index;
  const uint8_t* cols;
  uint64_t magic;
  int32_t per_block, block_words, words;
};

inline DeviceTable device_table(const TableView& table) {
  const int per_block = rows_per_block(table.layout);
  return DeviceTable{table.layout,
                     table.index,
                     table.cols,
                     ~0ull / static_cast<uint64_t>(per_block) + 1,
                     per_block,
                     block_words(table.layout),
                     mask_words(table.layout.dim)};
}

RS_INLINE uint64_t mul_hi64(uint64_t a, uint64_t b) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(a, b);
#else
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
#endif
}

template <int W>
struct Row {
  uint64_t start;  // of its values
  int count;
  uint32_t mask[W];
};

// The words of a row's index block that this lane holds: word lane, and lane + G where a block has more than G.
template <int G>
struct BlockWords {
  static constexpr int kOwn = G < 16 ? 16 / G : 1;
  uint64_t own[kOwn];
  int within;  // which row of the block
};

template <IndexKind K, int W, int G>
__device__ __forceinline__ BlockWords<G> load_block(const DeviceTable& table, int64_t row) {
  BlockWords<G> block{};
  if (K == IndexKind::full || row < 0) return block;
  const uint64_t number = mul_hi64(static_cast<uint64_t>(row), table.magic);
  block.within = static_cast<int>(static_cast<uint64_t>(row) - number * table.per_block);
  const uint64_t* words = table.index + number * table.block_words;
  const int lane = threadIdx.x % G;
#pragma unroll
  for (int h = 0; h < (W == 8 ? BlockWords<G>::kOwn : 1); ++h) {
    if (lane + h * G < table.block_words) block.own[h] = words[lane + h * G];
  }
  return block;
}

// Sum over the G lanes of a group, in every lane; a fixed tree.
template <int G, class T>
__device__ __forceinline__ T group_sum(T x) {
#pragma unroll
  for (int step = G / 2; step > 0; step /= 2) x += __shfl_xor_sync(kWholeWarp, x, step);
  return x;
}

// 32-bit half `half` of the block's body (the words after its base).
template <int W, int G>
__device__ __forceinline__ uint32_t body_half(const BlockWords<G>& block, int half) {
  const int word = 1 + half / 2;
  uint64_t own = block.own[0];
  if (W == 8 && BlockWords<G>::kOwn > 1 && word >= G) own = block.own[BlockWords<G>::kOwn - 1];
  return __shfl_sync(kWholeWarp, static_cast<uint32_t>(own >> (32 * (half % 2))), word % G, G);
}

// Start, count and, but for cols8, the mask of the row.
template <IndexKind K, int W, int G>
__device__ __forceinline__ Row<W> decode_block(const DeviceTable& table, const BlockWords<G>& block, int64_t row) {
  Row<W> ref;
  const int dim = table.layout.dim;
  if (K == IndexKind::full) {
    ref.start = row < 0 ? 0 : static_cast<uint64_t>(row) * dim;
    ref.count = row < 0 ? 0 : dim;
  } else {
    const int lane = threadIdx.x % G;
    uint32_t before = 0;
#pragma unroll
    for (int h = 0; h < (W == 8 ? BlockWords<G>::kOwn : 1); ++h) {
      const int word = lane + h * G - 1;  // of the body
      if (word < 0) continue;
      if (K == IndexKind::bits) {
        before += popcount64(block.own[h] & low_bits(32 * block.within * table.words - 64 * word));
      } else {
        const bool wide = W == 8 && dim == 256;
        const uint64_t part = block.own[h] & low_bits(block.within * (wide ? 16 : 8) - 64 * word);
        const uint64_t pairs = wide ? part : (part & 0x00ff00ff00ff00ffull) + ((part >> 8) & 0x00ff00ff00ff00ffull);
        before += static_cast<uint32_t>((pairs * 0x0001000100010001ull) >> 48);
      }
    }
    before = group_sum<G>(before);
    ref.start = __shfl_sync(kWholeWarp, block.own[0], 0, G) + before;
    if (K == IndexKind::bits) {
      ref.count = 0;
#pragma unroll
      for (int j = 0; j < W; ++j) {
        const uint32_t half = body_half<W, G>(block, j < table.words ? block.within * table.words + j : 0);
        ref.mask[j] = j < table.words && row >= 0 ? half : 0;
        ref.count += __popc(ref.mask[j]);
      }
    } else {
      const bool wide = W == 8 && dim == 256;
      const int byte = block.within * (wide ? 2 : 1);
      const uint32_t half = body_half<W, G>(block, byte / 4) >> (8 * (byte % 4));
      ref.count = row < 0 ? 0 : static_cast<int>(half & (wide ? 0xffffu : 0xffu));
    }
  }
  if constexpr (K != IndexKind::bits) {
#pragma unroll
    for (int j = 0; j < W; ++j) ref.mask[j] = static_cast<uint32_t>(low_bits(ref.count - 32 * j));
  }
  return ref;
}

// cols8 only: the mask from the row's columns.
template <IndexKind K, int W, int G>
__device__ __forceinline__ void complete_row(const DeviceTable& table, Row<W>& ref) {
  if constexpr (K == IndexKind::cols8) {
#pragma unroll
    for (int j = 0; j < W; ++j) ref.mask[j] = 0;
    for (int at = threadIdx.x % G; __any_sync(kWholeWarp, at < ref.count); at += G) {
      if (at >= ref.count) continue;
      const int col = table.cols[ref.start + at];
#pragma unroll
      for (int j = 0; j < W; ++j) ref.mask[j] |= col / 32 == j ? 1u << (col % 32) : 0u;
    }
#pragma unroll
    for (int j = 0; j < W; ++j) {
#pragma unroll
      for (int step = G / 2; step > 0; step /= 2) ref.mask[j] |= __shfl_xor_sync(kWholeWarp, ref.mask[j], step);
    }
  }
}

template <IndexKind K, int W, int G>
__device__ __forceinline__ Row<W> locate_row(const DeviceTable& table, int64_t row) {
  Row<W> ref = decode_block<K, W, G>(table, load_block<K, W, G>(table, row), row);
  complete_row<K, W, G>(table, ref);
  return ref;
}

// The same where the kind is not worth a kernel of its own.
template <int W, int G>
__device__ __forceinline__ Row<W> locate_row(const DeviceTable& table, int64_t row) {
  switch (table.layout.kind) {
    case IndexKind::full: return locate_row<IndexKind::full, W, G>(table, row);
    case IndexKind::prefix: return locate_row<IndexKind::prefix, W, G>(table, row);
    case IndexKind::bits: return locate_row<IndexKind::bits, W, G>(table, row);
    default: return locate_row<IndexKind::cols8, W, G>(table, row);
  }
}

// Of the columns [col, col + 32 - col % 32): which are kept, and how many kept ones lie before `col`.
struct ColumnBits {
  uint32_t bits;
  int before;
};
template <int W>
__device__ __forceinline__ ColumnBits column_bits(const Row<W>& ref, int col) {
  ColumnBits out{0, 0};
#pragma unroll
  for (int j = 0; j < W; ++j) {
    const uint32_t word = ref.mask[j];  // read whatever j is: a conditional read would put the mask in local memory
    out.bits |= col / 32 == j ? word : 0u;
    out.before += j < col / 32 ? __popc(word) : 0;
  }
  out.before += __popc(out.bits & static_cast<uint32_t>(low_bits(col % 32)));
  out.bits >>= col % 32;
  return out;
}

// How the columns of a row are shared out when dense rows of T are read or written: G lanes, and a lane owns `kChunks`
// runs of `kVector` columns (16 bytes), so that a group's access is contiguous.
template <class T, int W>
struct DenseRow {
  static constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  static constexpr int kLanes = 32 * W / kVector < 32 ? 32 * W / kVector : 32;
  static constexpr int kChunks = 32 * W / (kLanes * kVector);

  __device__ __forceinline__ static int column(int chunk) {
    return (chunk * kLanes + static_cast<int>(threadIdx.x) % kLanes) * kVector;
  }
};

// Sixteen bytes of T, moved as one uint4 where `whole` says that the address is aligned and all columns exist.
template <class T>
struct alignas(16) Vector {
  T x[16 / sizeof(T)];
};

template <class T>
__device__ __forceinline__ Vector<T> load_vector(const T* p, int columns, bool whole) {
  Vector<T> v{};
  if (columns <= 0) return v;
  if (whole) {
    const uint4 raw = *reinterpret_cast<const uint4*>(p);
    std::memcpy(&v, &raw, 16);
    return v;
  }
#pragma unroll
  for (int i = 0; i < 16 / static_cast<int>(sizeof(T)); ++i) {
    if (i < columns) v.x[i] = p[i];
  }
  return v;
}
template <class T>
__device__ __forceinline__ void store_vector(T* p, const Vector<T>& v, int columns, bool whole) {
  if (columns <= 0) return;
  if (whole) {
    uint4 raw;
    std::memcpy(&raw, &v, 16);
    *reinterpret_cast<uint4*>(p) = raw;
    return;
  }
#pragma unroll
  for (int i = 0; i < 16 / static_cast<int>(sizeof(T)); ++i) {
    if (i < columns) p[i] = v.x[i];
  }
}

// Whether dense rows of `dim` T from p on can be moved 16 bytes at a time.
template <class T>
bool whole_vectors(const T* p, int dim) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && dim % (16 / static_cast<int>(sizeof(T))) == 0;
}

// Number of kept weights, in every thread of the block. Called by whole blocks.
__device__ __forceinline__ int64_t kept_weights(const DeviceTable& table) {
  struct Kept {
    int64_t count;
  };
  Kept& kept = shared<Kept>();
  if (threadIdx.x < 32) {
    const Row<8> last = locate_row<8, 32>(table, table.layout.rows - 1);
    if (threadIdx.x == 0) kept.count = static_cast<int64_t>(last.start) + last.count;
  }
  __syncthreads();
  return kept.count;
}

// ---- choice of the variant -------------------------------------------------------------------------------------------

template <IndexKind K>
struct KindOf {
  static constexpr IndexKind kind = K;
};
template <int W>
struct WidthOf {
  static constexpr int width = W;
};

template <class Body>
auto with_width(const Layout& layout, Body&& body) {
  const int words = mask_words(layout.dim);
  return words <= 2 ? body(WidthOf<2>{}) : words <= 4 ? body(WidthOf<4>{}) : body(WidthOf<8>{});
}
template <class Body>
auto with_kind(const Layout& layout, Body&& body) {
  switch (layout.kind) {
    case IndexKind::full: return body(KindOf<IndexKind::full>{});
    case IndexKind::prefix: return body(KindOf<IndexKind::prefix>{});
    case IndexKind::bits: return body(KindOf<IndexKind::bits>{});
    default: return body(KindOf<IndexKind::cols8>{});
  }
}
template <class Body>
auto with_values(ValueType type, Body&& body) {
  switch (type) {
    case ValueType::float16: return body(Half{});
    case ValueType::bfloat16: return body(BFloat16{});
    default: return body(float{});
  }
}

}  // namespace recsparse::cuda
