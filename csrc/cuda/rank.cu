#include <algorithm>

#include "core/rank.h"
#include "cuda/errors.cuh"
#include "cuda/rank.h"
#include "cuda/table.cuh"

namespace recsparse::cuda {
namespace {

constexpr int kWarps = kThreads / 32;
constexpr int kOwnUsers = 8,
              kOwnItems = 4;  // scores of a thread: 32 sums, fed by two broadcasts and one 16-byte load a column
constexpr int kTileUsers = kWarps * kOwnUsers, kTileItems = 32 * kOwnItems;
constexpr int kColumns = 32;               // in shared memory at a time: 24 KB of both sides
constexpr int kSharedList = 32;            // lists up to this long are kept in shared memory, 16 KB
constexpr int64_t kChunkBytes = 64 << 20;  // of unpacked items: the second-level cache holds most of them
constexpr int kPartTiles = 8;  // item tiles of a part at least, so that filling a list is a small part of it

// How a call is cut: items in chunks, one after the other; a chunk in parts, so that few users fill the chip as well.
struct Plan {
  int64_t user_tiles, chunk, parts;
};

Plan make_plan(const RankArgs& args) {
  Plan plan;
  plan.user_tiles = (args.users.count + kTileUsers - 1) / kTileUsers;
  const int64_t room = std::max<int64_t>(1, kChunkBytes / (4 * int64_t{args.dim} * kTileItems)) * kTileItems;
  plan.chunk = args.items.dense ? args.items.count : std::min(args.items.count, room);
  const int64_t wanted = int64_t{4} * multiprocessors() / std::max<int64_t>(1, plan.user_tiles);
  plan.parts = std::max<int64_t>(1, std::min(wanted, plan.chunk / (kPartTiles * kTileItems)));
  return plan;
}

struct Scratch {
  uint32_t* bad;    // [1] not 0: an id or indptr is out of range
  uint64_t* lists;  // [parts, users, k] keys of core/rank.h, best first, 0: nothing
  float *users, *items;

  Scratch(const RankArgs& args, const Plan& plan, Workspace& space)
      : bad(space.take<uint32_t>(1)),
        lists(space.take<uint64_t>(plan.parts * args.users.count * args.k)),
        users(space.take<float>(args.users.dense ? 0 : args.users.count * args.dim)),
        items(space.take<float>(args.items.dense ? 0 : plan.chunk * args.dim)) {}
};

// What ranks a chunk.
struct Ranking {
  const float *users, *items;
  int64_t n_users, n_items;
  int64_t first;  // id of the chunk's first item
  int64_t user_tiles, parts;
  int dim;
  bool whole_users, whole_items;
  const int64_t* seen_indptr;
  const int32_t* seen_items;
  int64_t k;
  uint64_t* lists;
  const uint32_t* bad;
};

struct alignas(16) RankTile {
  float users[kColumns][kTileUsers];
  float items[kColumns][kTileItems];
  uint64_t lists[kTileUsers][kSharedList];
  float limits[kTileUsers];  // scores of the k-th best so far
};

__device__ __forceinline__ float list_limit(const uint64_t* list, int64_t k) {
  const uint64_t last = list[k - 1];
  return last ? rank_key_score(last) : -INFINITY;
}

// Puts a key into a descending list of k, whose last one leaves. By a whole warp; 32 entries at a time, from the end.
__device__ __forceinline__ void insert(uint64_t* list, int64_t k, uint64_t key) {
  const int lane = threadIdx.x % 32;
  for (int64_t base = (k - 1) / 32 * 32; base >= 0; base -= 32) {
    const int64_t i = base + lane;
    const uint64_t own = i < k ? list[i] : 0;
    uint64_t before = __shfl_up_sync(kWholeWarp, own, 1);
    if (lane == 0) before = base > 0 ? list[base - 1] : ~0ull;
    if (i < k && own < key) list[i] = before < key ? before : key;
    __syncwarp();
    if (__any_sync(kWholeWarp, own > key)) break;
  }
}

__device__ __forceinline__ bool is_seen(const Ranking& args, int64_t user, int32_t item) {
  int64_t low = args.seen_indptr[user], high = args.seen_indptr[user + 1];
  const int64_t end = high;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    args.seen_items[middle] < item ? low = middle + 1 : high = middle;
  }
  return low < end && args.seen_items[low] == item;
}

// Columns [column, column + kColumns) of `Rows` rows, of which `left` exist; the rest is 0. Lanes take neighbouring rows, so
// that what they store lies in different banks.
template <int Rows>
__device__ __forceinline__ void load_columns(float (*to)[Rows], const float* rows, int64_t left, int column, int dim,
                                             bool whole) {
#pragma unroll
  for (int n = 0; n < Rows * kColumns / 4 / kThreads; ++n) {
    const int i = n * kThreads + static_cast<int>(threadIdx.x), row = i % Rows, quad = i / Rows;
    const int at = column + 4 * quad;
    const Vector<float> part =
        load_vector(rows + static_cast<int64_t>(row) * dim + at, row < left ? dim - at : 0, whole);
#pragma unroll
    for (int j = 0; j < 4; ++j) to[4 * quad + j][row] = part.x[j];
  }
}

__device__ __forceinline__ float largest(const float* scores) {
  return ::fmaxf(::fmaxf(scores[0], scores[1]), ::fmaxf(scores[2], scores[3]));
}

// Offers the lane's four neighbouring items from `item` on to the list of the warp's user. Items come in ascending order, so that
// of equal scores the later one never enters.
__device__ __forceinline__ void offer(const Ranking& args, uint64_t* list, float& stored_limit, int64_t user,
                                      int32_t item, float* scores) {
  const int lane = threadIdx.x % 32;
  float limit = stored_limit;
#pragma unroll
  for (int j = 0; j < kOwnItems; ++j) {
    if (scores[j] > limit && is_seen(args, user, item + j)) scores[j] = -INFINITY;
  }
  int from = 0;  // lanes before it are done
  while (const unsigned votes = __ballot_sync(kWholeWarp, lane >= from && largest(scores) > limit)) {
    const int source = __ffs(static_cast<int>(votes)) - 1;
    const int32_t first = __shfl_sync(kWholeWarp, item, source);
#pragma unroll
    for (int j = 0; j < kOwnItems; ++j) {
      const float score = __shfl_sync(kWholeWarp, scores[j], source);
      if (score > limit) {
        insert(list, args.k, rank_key(score, first + j));
        limit = list_limit(list, args.k);
      }
    }
    from = source + 1;
  }
  __syncwarp();
  if (lane == 0) stored_limit = limit;
  __syncwarp();
}

// Grid: user tiles * parts; a block ranks 64 users over a part of the items, 128 at a time; users of a warp are its own, so that
// their lists need no block. Bytes moved, a tile of scores: 4 dim a user and an item, from the second-level cache; 64 x 128
// products a column for 768 bytes, so the multipliers are what is
// busy: 16 warps with 32 independent sums a thread feed them, two blocks a multiprocessor. A list changes k ln(items / k) times or so.
__global__ void __launch_bounds__(kThreads, 2) rank_kernel(Ranking args) {
  if (*args.bad) return;
  RankTile& tile = shared<RankTile>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_user = blockIdx.x % args.user_tiles * kTileUsers, part = blockIdx.x / args.user_tiles;
  const int64_t item_tiles = (args.n_items + kTileItems - 1) / kTileItems;
  const int64_t span = (item_tiles + args.parts - 1) / args.parts * kTileItems;
  const int64_t begin = part * span, end = smaller(begin + span, args.n_items);
  const bool in_shared = args.k <= kSharedList;
  const auto stored_list = [&](int own) { return args.lists + (part * args.n_users + first_user + own) * args.k; };
  for (int own = warp * kOwnUsers; own < (warp + 1) * kOwnUsers; ++own) {
    const bool exists = first_user + own < args.n_users;
    if (in_shared && exists && lane < args.k) tile.lists[own][lane] = stored_list(own)[lane];
    if (lane == 0) tile.limits[own] = exists ? list_limit(stored_list(own), args.k) : INFINITY;
  }
  __syncwarp();
  for (int64_t first = begin; first < end; first += kTileItems) {
    float scores[kOwnUsers][kOwnItems] = {};
    for (int column = 0; column < args.dim; column += kColumns) {
      __syncthreads();
      load_columns(tile.users, args.users + first_user * args.dim, args.n_users - first_user, column, args.dim,
                   args.whole_users);
      load_columns(tile.items, args.items + first * args.dim, args.n_items - first, column, args.dim, args.whole_items);
      __syncthreads();
      const int columns = args.dim - column < kColumns ? args.dim - column : kColumns;
#pragma unroll 4
      for (int c = 0; c < columns; ++c) {
        const float* users = tile.users[c] + warp * kOwnUsers;
        const Vector<float> low = load_vector(users, 4, true), high = load_vector(users + 4, 4, true);
        const Vector<float> items = load_vector(tile.items[c] + lane * kOwnItems, 4, true);
#pragma unroll
        for (int u = 0; u < kOwnUsers; ++u) {
#pragma unroll
          for (int j = 0; j < kOwnItems; ++j) {
            scores[u][j] = ::fmaf(u < 4 ? low.x[u % 4] : high.x[u % 4], items.x[j], scores[u][j]);
          }
        }
      }
    }
    const int64_t item = first + lane * kOwnItems;
    unsigned hits = 0;  // users with a score above their limit
#pragma unroll
    for (int u = 0; u < kOwnUsers; ++u) {
#pragma unroll
      for (int j = 0; j < kOwnItems; ++j) scores[u][j] = item + j < end ? scores[u][j] : -INFINITY;
      const bool hit = largest(scores[u]) > tile.limits[warp * kOwnUsers + u];
      hits |= __any_sync(kWholeWarp, hit) ? 1u << u : 0u;
    }
    for (; hits; hits &= hits - 1) {
      const int u = __ffs(static_cast<int>(hits)) - 1, own = warp * kOwnUsers + u;
      float chosen[kOwnItems];
#pragma unroll
      for (int j = 0; j < kOwnItems; ++j) {
        chosen[j] = scores[0][j];
#pragma unroll
        for (int v = 1; v < kOwnUsers; ++v) chosen[j] = u == v ? scores[v][j] : chosen[j];
      }
      offer(args, in_shared ? tile.lists[own] : stored_list(own), tile.limits[own], first_user + own,
            static_cast<int32_t>(args.first + item), chosen);
    }
  }
  if (!in_shared) return;
  for (int own = warp * kOwnUsers; own < (warp + 1) * kOwnUsers; ++own) {
    if (first_user + own < args.n_users && lane < args.k) stored_list(own)[lane] = tile.lists[own][lane];
  }
}

// Grid: grid_for(users), a warp a user: joins the lists of the parts. Bytes moved: 8 k a part and 8 k written, a user.
__global__ void __launch_bounds__(kThreads) rank_finish_kernel(Ranking args, int32_t* items, float* scores) {
  for (int64_t user = global_thread() / 32; user < args.n_users; user += global_threads() / 32) {
    uint64_t* list = args.lists + user * args.k;
    for (int64_t part = 1; part < args.parts; ++part) {
      const uint64_t* other = list + part * args.n_users * args.k;
      for (int64_t i = 0; i < args.k && other[i] > list[args.k - 1]; ++i) insert(list, args.k, other[i]);
    }
    for (int64_t i = threadIdx.x % 32; i < args.k; i += 32) {
      const uint64_t key = list[i];
      items[user * args.k + i] = key ? rank_item(key) : -1;
      scores[user * args.k + i] = key ? rank_key_score(key) : -INFINITY;
    }
  }
}

// Rows [begin, begin + count) of `rows` as floats. Grid: grid_for(rows); a group of lanes takes a row. Bytes moved, a row: an
// index block, the kept values, 4 dim written.
template <class T, int W>
__global__ void __launch_bounds__(kThreads, 4)
    rank_unpack_kernel(DeviceTable table, RankRows rows, int64_t begin, int64_t count, ErrorSite bad_ids, uint32_t* bad,
                       float* out, bool whole) {
  using Dense = DenseRow<float, W>;
  constexpr int G = Dense::kLanes;
  const int dim = table.layout.dim;
  const int64_t groups = global_threads() / G, rounds = (count + groups - 1) / groups;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t i = global_thread() / G + round * groups;
    int64_t row = i < count ? rows.first + begin + i : -1;
    if (i < count && rows.ids) {
      row = rows.ids[i];
      if (static_cast<uint64_t>(row) >= static_cast<uint64_t>(table.layout.rows)) {
        if (threadIdx.x % G == 0) report(bad_ids, i, row);
        atomicOr(bad, 1u);
        row = -1;
      }
    }
    const Row<W> ref = locate_row<W, G>(table, row);
    const T* values = static_cast<const T*>(rows.values) + ref.start;
    if (i >= count) continue;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const int column = Dense::column(c);
      const ColumnBits kept = column_bits(ref, column);
      Vector<float> part;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        part.x[j] = kept.bits >> j & 1 ? widen(values[kept.before + __popc(kept.bits & ((1u << j) - 1))]) : 0.0f;
      }
      store_vector(out + i * dim + column, part, dim - column, whole);
    }
  }
}

// Notes dense rows that cannot be ranked; row i is number begin + i of `rows`. Grid: grid_for(rows), a warp a row. Bytes
// moved: 4 dim a row.
__global__ void __launch_bounds__(kThreads)
    rank_check_kernel(const float* dense, RankRows rows, int64_t begin, int64_t count, int dim) {
  for (int64_t i = global_thread() / 32; i < count; i += global_threads() / 32) {
    float squares = 0;  // overflows where a norm is too large anyway
    for (int c = threadIdx.x % 32; c < dim; c += 32) squares = ::fmaf(dense[i * dim + c], dense[i * dim + c], squares);
    squares = group_sum<32>(squares);
    if (threadIdx.x % 32 == 0 && !(squares <= kRankLargestNorm * kRankLargestNorm)) {
      report(rows.bad_rows, begin + i, rows.ids ? rows.ids[i] : begin + i);
    }
  }
}

// Grid: grid_for(users), one a thread and stride. Bytes moved: 8 a user.
__global__ void __launch_bounds__(kThreads)
    rank_seen_kernel(const int64_t* indptr, int64_t users, int64_t seen, ErrorSite site, uint32_t* bad) {
  for (int64_t u = global_thread(); u < users; u += global_threads()) {
    if (indptr[u] >= 0 && indptr[u] <= indptr[u + 1] && indptr[u + 1] <= seen) continue;
    report(site, u, indptr[u + 1]);
    atomicOr(bad, 1u);
  }
}

// `count` rows from number `begin` on, dense and checked; `room` takes what has to be unpacked.
const float* read_rows(const RankArgs& args, const RankRows& rows, int64_t begin, int64_t count, float* room,
                       uint32_t* bad, void* stream) {
  const float* dense = rows.dense ? rows.dense + begin * args.dim : room;
  if (!rows.dense) {
    const DeviceTable table = device_table(rows.table);
    with_values(rows.type, [&](auto storage) {
      with_width(table.layout, [&](auto width) {
        constexpr int W = decltype(width)::width;
        launch("rank_unpack", rank_unpack_kernel<decltype(storage), W>,
               grid_for(count, kThreads / DenseRow<float, W>::kLanes), kThreads, stream, table, rows, begin, count,
               args.bad_ids, bad, room, whole_vectors(room, args.dim));
      });
    });
  }
  launch("rank_check", rank_check_kernel, grid_for(count, kWarps), kThreads, stream, dense, rows, begin, count,
         args.dim);
  return dense;
}

}  // namespace

int64_t rank_workspace_bytes(const RankArgs& args) {
  Workspace space(nullptr);
  const Scratch scratch(args, make_plan(args), space);
  return space.bytes();
}

const char* rank(const RankArgs& args, void* stream) {
  const int64_t users = args.users.count;
  if (users == 0) return nullptr;
  const Plan plan = make_plan(args);
  Workspace space(args.workspace);
  const Scratch scratch(args, plan, space);
  clear(scratch.bad, sizeof(uint32_t), stream);
  clear(scratch.lists, 8 * plan.parts * users * args.k, stream);
  launch("rank_seen", rank_seen_kernel, grid_for(users, kThreads), kThreads, stream, args.seen_indptr, users, args.seen,
         args.bad_seen, scratch.bad);
  Ranking ranking{};
  ranking.users = read_rows(args, args.users, 0, users, scratch.users, scratch.bad, stream);
  ranking.n_users = users;
  ranking.user_tiles = plan.user_tiles;
  ranking.parts = plan.parts;
  ranking.dim = args.dim;
  ranking.whole_users = whole_vectors(ranking.users, args.dim);
  ranking.seen_indptr = args.seen_indptr;
  ranking.seen_items = args.seen_items;
  ranking.k = args.k;
  ranking.lists = scratch.lists;
  ranking.bad = scratch.bad;
  for (int64_t first = 0; first < args.items.count; first += plan.chunk) {
    ranking.first = first;
    ranking.n_items = std::min(plan.chunk, args.items.count - first);
    ranking.items = read_rows(args, args.items, first, ranking.n_items, scratch.items, scratch.bad, stream);
    ranking.whole_items = whole_vectors(ranking.items, args.dim);
    launch("rank", rank_kernel, plan.user_tiles * plan.parts, kThreads, stream, ranking);
  }
  launch("rank_finish", rank_finish_kernel, grid_for(users, kWarps), kThreads, stream, ranking, args.out_items,
         args.out_scores);
  return launch_error();
}

}  // namespace recsparse::cuda
