// rank for one instruction set; see rank.h. Include after an isa_*.h. A screen (rank_float32.h, rank_int8.h) brings the
// types and the arithmetic of its blocks; what is here is the same for all.
#pragma once

#include "cpu/rank.h"
#include "cpu/rank_heap.h"
#include "cpu/row_access.h"

namespace recsparse::RS_ISA {

constexpr int kRankFlush = 8;  // candidates of a user that are worth scoring together: their rows arrive meanwhile

// Thresholds that no score reaches, and that every score exceeds. Finite: bounds are subtracted from them.
constexpr float kRankClosed = 3e38f, kRankOpen = -3e38f;

// Relative error of a score of unit rows, generously: of `rank_score` and of a float32 block together.
RS_INLINE float rank_rounding(int dim) { return static_cast<float>(dim + 16) * 0x1p-22f; }
// Norms are computed in float32 and must not come out too small.
constexpr float kRankUp = 1.0005f;

RS_INLINE uint32_t rank_lanes(int dim, int c) { return static_cast<uint32_t>(low_bits(dim - c) & 0xffff); }

// THE score of a pair: sixteen sums over the columns modulo 16, added by halving.
RS_INLINE float rank_score(const float* a, const float* b, int dim) {
  F16 sum(0.0f);
  int c = 0;
  for (; c + 16 <= dim; c += 16) sum = fma(load(a + c), load(b + c), sum);
  if (c < dim) sum = fma(load(a + c, rank_lanes(dim, c)), load(b + c, rank_lanes(dim, c)), sum);
  return reduce_add(sum);
}

// Largest magnitude and Euclidean norm, rounded up; norm 0 is exact, and others are at least 1e-15, so that products of
// two rows do not vanish. A row that cannot be ranked has a norm of infinity.
struct RowSize {
  float largest, norm;
};
RS_INLINE RowSize row_size(const float* row, int dim) {
  F16 squares(0.0f), magnitudes(0.0f);
  for (int c = 0; c < dim; c += 16) {
    const F16 x = load(row + c, rank_lanes(dim, c));
    squares = fma(x, x, squares);
    magnitudes = max(magnitudes, abs(x));
  }
  float lanes[16], largest = 0;
  store(lanes, magnitudes);
  for (float lane : lanes) largest = lane > largest ? lane : largest;
  const float sum = reduce_add(squares);
  if (!(sum <= kRankLargestNorm * kRankLargestNorm)) return RowSize{0, __builtin_inff()};
  if (largest == 0) return RowSize{0, 0};
  const float norm = kRankUp * __builtin_sqrtf(sum);
  return RowSize{largest, norm > 1e-15f ? norm : 1e-15f};
}

template <class T, IndexKind K>
static void rank_unpack(const RankRows& rows, int64_t begin, int64_t end, float* out) {
  const TableView& table = rows.table;
  const int dim = table.layout.dim, chunks = chunk_count<0>(dim);
  const T* values = static_cast<const T*>(rows.values);
  const bool far = is_far(rows.capacity * static_cast<int64_t>(sizeof(T)) + 8 * index_words(table.layout));
  for (int64_t i = begin; i < end; ++i, out += dim) {
    RowRef<0> ref = locate<K, 0, Rank>(table, rows.ids ? rows.ids[i] : rows.first + i);
    complete<K, 0>(table, ref);
    for_each_chunk<K>(values + ref.start, ref, chunks, far,
                      [&](int c, F16 chunk) { store(out + 16 * c, chunk, rank_lanes(dim, 16 * c)); });
  }
}

template <class T>
static void rank_unpack_kind(const RankRows& rows, int64_t begin, int64_t end, float* out) {
  switch (rows.table.layout.kind) {
    case IndexKind::full: return rank_unpack<T, IndexKind::full>(rows, begin, end, out);
    case IndexKind::prefix: return rank_unpack<T, IndexKind::prefix>(rows, begin, end, out);
    case IndexKind::bits: return rank_unpack<T, IndexKind::bits>(rows, begin, end, out);
    default: return rank_unpack<T, IndexKind::cols8>(rows, begin, end, out);
  }
}

static void rank_read_rows(const RankRows& rows, int64_t begin, int64_t end, float* out) {
  switch (rows.type) {
    case ValueType::float16: return rank_unpack_kind<Half>(rows, begin, end, out);
    case ValueType::bfloat16: return rank_unpack_kind<BFloat16>(rows, begin, end, out);
    default: return rank_unpack_kind<float>(rows, begin, end, out);
  }
}

template <class S>
RS_INLINE int rank_steps(int dim) {
  return (dim + S::kColumns - 1) / S::kColumns;
}

template <class S>
static int64_t rank_pack(const RankChunk& chunk, int dim, int64_t begin, int64_t end) {
  constexpr int kWidth = 16 * S::kVectors;
  const int64_t words = static_cast<int64_t>(kWidth) * rank_steps<S>(dim);
  int64_t bad = -1;
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel * kWidth;
    const int lanes = static_cast<int>(chunk.count - first < kWidth ? chunk.count - first : kWidth);
    const float* rows = chunk.rows + first * dim;
    float largest = 0, norm = 0;
    for (int lane = 0; lane < lanes; ++lane) {
      const RowSize size = row_size(rows + static_cast<int64_t>(lane) * dim, dim);
      if (size.norm == __builtin_inff() && bad < 0) bad = first + lane;
      largest = size.largest > largest ? size.largest : largest;
      norm = size.norm > norm ? size.norm : norm;
    }
    chunk.bounds[panel] = S::pack_panel(rows, lanes, dim, largest, norm, chunk.words + panel * words);
  }
  return bad;
}

template <class S>
static int64_t rank_prepare(const RankArgs& args, RankTile& tile) {
  const int dim = args.dim;
  const int64_t words = static_cast<int64_t>(S::kUsers) * rank_steps<S>(dim);
  tile.rows = args.users.dense ? args.users.dense + tile.begin * dim : tile.unpacked;
  if (!args.users.dense) rank_read_rows(args.users, tile.begin, tile.begin + tile.users, tile.unpacked);
  for (int u = 0; u < tile.capacity; ++u) {
    uint32_t* out = tile.words + u / S::kUsers * words + u % S::kUsers;
    RowSize size{0, 0};
    const float* row = tile.rows + static_cast<int64_t>(u) * dim;
    if (u < tile.users) {
      size = row_size(row, dim);
      if (size.norm == __builtin_inff()) return tile.begin + u;
    }
    tile.norm[u] = size.norm;
    tile.waiting[u] = 0;
    const bool open = u < tile.users && tile.held[u] < args.k;
    tile.threshold[u] = u >= tile.users ? kRankClosed : open ? kRankOpen : rank_key_score(tile.heaps[u * args.k]);
    S::pack_user(u < tile.users ? row : nullptr, dim, size, u, tile, out);
  }
  tile.wasted = 0;
  return -1;
}

// Scores the candidates of a user that wait, and keeps the best.
[[gnu::noinline]] static void rank_flush(const RankArgs& args, const RankChunk& chunk, RankTile& tile, int u) {
  const int64_t user = tile.begin + u, seen_end = args.seen_indptr[user + 1];
  const float* row = tile.rows + static_cast<int64_t>(u) * args.dim;
  const int32_t* buffer = tile.buffer + u * kRankBuffer;
  uint64_t* heap = tile.heaps + u * args.k;
  int64_t seen = tile.seen_at[u], held = tile.held[u];
  for (int i = 0; i < tile.waiting[u]; ++i) {
    const int32_t item = buffer[i];
    while (seen < seen_end && args.seen_items[seen] < item) ++seen;
    if (seen < seen_end && args.seen_items[seen] == item) continue;
    const uint64_t key = rank_key(rank_score(row, chunk.rows + (item - chunk.first) * args.dim, args.dim), item);
    if (held < args.k) {
      heap_push(heap, held++, key);
    } else if (key > heap[0]) {
      heap_replace(heap, held, key);
    } else {
      ++tile.wasted;
    }
  }
  tile.seen_at[u] = seen;
  tile.held[u] = held;
  tile.waiting[u] = 0;
  if (held < args.k) return;
  const float worst = rank_key_score(heap[0]);
  if (worst > tile.threshold[u]) tile.threshold[u] = worst;
}

// Appends the items of a block whose bit is set to the candidates of their user.
[[gnu::noinline]] static void rank_collect(const RankArgs& args, const RankChunk& chunk, RankTile& tile, int first_user,
                                           int64_t first_item, uint32_t users, const uint64_t* items) {
  for (; users; users &= users - 1) {
    const int which = __builtin_ctz(users), u = first_user + which;
    int32_t* buffer = tile.buffer + u * kRankBuffer;
    int waiting = tile.waiting[u];
    for (uint64_t rest = items[which]; rest; rest &= rest - 1) {
      const int64_t place = first_item + __builtin_ctzll(rest);
      buffer[waiting++] = static_cast<int32_t>(chunk.first + place);
      prefetch_span(chunk.rows + place * args.dim, static_cast<uint32_t>(args.dim));
    }
    tile.waiting[u] = waiting;
    if (waiting >= kRankFlush) rank_flush(args, chunk, tile, u);
  }
}

// The scores of kUsers users and a panel, in registers.
template <class S>
RS_INLINE void rank_sums(const uint32_t* user_words, const uint32_t* item_words, int steps,
                         typename S::Sum (&sums)[S::kUsers][S::kVectors]) {
#pragma GCC unroll 16
  for (int u = 0; u < S::kUsers; ++u) {
#pragma GCC unroll 4
    for (int v = 0; v < S::kVectors; ++v) sums[u][v] = S::zero();
  }
  for (int step = 0; step < steps; ++step) {
    typename S::Words panel[S::kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < S::kVectors; ++v) panel[v] = S::load_words(item_words + 16 * v);
#pragma GCC unroll 16
    for (int u = 0; u < S::kUsers; ++u) {
      const typename S::Words user = S::broadcast(user_words + u);
#pragma GCC unroll 4
      for (int v = 0; v < S::kVectors; ++v) sums[u][v] = S::add_products(user, panel[v], sums[u][v]);
    }
    user_words += S::kUsers;
    item_words += 16 * S::kVectors;
  }
}

// Bit i of items[u] is set where the score of item i exceeds the limit of user u. Returns the users that have any.
template <class S>
RS_INLINE uint32_t rank_block(const uint32_t* user_words, const uint32_t* item_words, int steps,
                              const typename S::Limit* limits, uint64_t* items) {
  typename S::Sum sums[S::kUsers][S::kVectors];
  rank_sums<S>(user_words, item_words, steps, sums);
  uint32_t found = 0;
#pragma GCC unroll 16
  for (int u = 0; u < S::kUsers; ++u) {
    typename S::Sum best = sums[u][0];
#pragma GCC unroll 4
    for (int v = 1; v < S::kVectors; ++v) best = S::larger(best, sums[u][v]);
    if (__builtin_expect(S::any_above(best, limits[u]), 0)) {
      uint64_t mask = 0;
#pragma GCC unroll 4
      for (int v = 0; v < S::kVectors; ++v) mask |= static_cast<uint64_t>(S::above(sums[u][v], limits[u])) << (16 * v);
      items[u] = mask;
      found |= 1u << u;
    }
  }
  return found;
}

// The users of a tile without a full list start with a threshold that k of their unseen items are known to reach. Without
// it, two thirds of the items that enter a list are pushed out again. Each of kRankLanes lanes keeps the best lower bound
// of the scores that it meets in one panel out of kSeedStride. The lanes' items are distinct, so the k-th best lane, or
// the (k + s)-th where s of a user's seen items lie in those panels, is such a threshold.
template <class S>
static void rank_seed(const RankArgs& args, const RankChunk& chunk, RankTile& tile) {
  constexpr int kWidth = 16 * S::kVectors, kSets = kRankLanes / kWidth;
  const int64_t whole = chunk.count / kWidth;  // panels without empty lanes
  int need[kRankTileUsers];
  bool any = false;
  for (int u = 0; u < tile.users; ++u) {
    need[u] = kRankLanes;
    if (tile.held[u] == args.k || args.k > 2 * kRankLanes / 3 || whole < kSets * S::kSeedStride) continue;
    int64_t count = args.k;
    for (int64_t at = tile.seen_at[u]; at < args.seen_indptr[tile.begin + u + 1]; ++at) {
      const int64_t panel = (args.seen_items[at] - chunk.first) / kWidth;
      count += panel < whole && panel % S::kSeedStride == 0;
    }
    if (count > 2 * kRankLanes / 3) continue;
    need[u] = static_cast<int>(count);
    any = true;
  }
  if (!any) return;
  const int steps = rank_steps<S>(args.dim), groups = (tile.users + S::kUsers - 1) / S::kUsers;
  for (int64_t i = 0; i < static_cast<int64_t>(groups) * S::kUsers * kRankLanes; ++i) tile.lanes[i] = kRankOpen;
  for (int64_t panel = 0, set = 0; panel < whole; panel += S::kSeedStride, set = set + 1 == kSets ? 0 : set + 1) {
    for (int g = 0; g < groups; ++g) {
      typename S::Sum sums[S::kUsers][S::kVectors];
      rank_sums<S>(tile.words + static_cast<int64_t>(g) * steps * S::kUsers, chunk.words + panel * steps * kWidth,
                   steps, sums);
#pragma GCC unroll 16
      for (int u = 0; u < S::kUsers; ++u) {
        const int user = g * S::kUsers + u;
        float* lanes = tile.lanes + user * kRankLanes + set * kWidth;
        const auto bound = S::lower_bound(chunk.bounds[panel], rank_rounding(args.dim), tile, user);
#pragma GCC unroll 4
        for (int v = 0; v < S::kVectors; ++v) {
          store(lanes + 16 * v, max(load(lanes + 16 * v), S::lower(sums[u][v], bound)));
        }
      }
    }
  }
  for (int u = 0; u < tile.users; ++u) {
    if (need[u] == kRankLanes) continue;
    F16 lanes[kRankLanes / 16], low(__builtin_inff()), high(-__builtin_inff());
    for (int v = 0; v < kRankLanes / 16; ++v) {
      lanes[v] = load(tile.lanes + u * kRankLanes + 16 * v);
      low = min(low, lanes[v]);
      high = max(high, lanes[v]);
    }
    float at_least = __builtin_inff(), at_most = -__builtin_inff(), ends[32];
    store(ends, low);
    store(ends + 16, high);
    for (int i = 0; i < 16; ++i) {
      at_least = ends[i] < at_least ? ends[i] : at_least;
      at_most = ends[16 + i] > at_most ? ends[16 + i] : at_most;
    }
    for (int i = 0; i < 12; ++i) {  // to 1/4096 of the range
      const float middle = 0.5f * at_least + 0.5f * at_most;
      int above = 0;
      for (const F16& lane : lanes) above += popcount64(greater(lane, F16(middle)));
      (above >= need[u] ? at_least : at_most) = middle;
    }
    // Items that equal the threshold must pass: a little lower.
    const float magnitude = at_least < 0 ? -at_least : at_least;
    tile.threshold[u] = at_least - (0x1p-20f * magnitude + 1e-30f);
  }
}

template <class S>
static bool rank_run(const RankArgs& args, const RankChunk& chunk, RankTile& tile) {
  constexpr int kWidth = 16 * S::kVectors;
  static_assert(kWidth + kRankFlush <= kRankBuffer);
  const int dim = args.dim, steps = rank_steps<S>(dim);
  const int groups = (tile.users + S::kUsers - 1) / S::kUsers;
  const int64_t panels = (chunk.count + kWidth - 1) / kWidth;
  rank_seed<S>(args, chunk, tile);
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t first = panel * kWidth;
    const uint64_t there = low_bits(static_cast<int>(chunk.count - first < 64 ? chunk.count - first : 64));
    const uint32_t* item_words = chunk.words + panel * steps * kWidth;
    S::set_limits(chunk.bounds[panel], rank_rounding(dim), tile, groups * S::kUsers);
    const auto* limits = reinterpret_cast<const typename S::Limit*>(tile.limits);
    for (int g = 0; g < groups; ++g) {
      uint64_t items[S::kUsers];
      const uint32_t* user_words = tile.words + static_cast<int64_t>(g) * steps * S::kUsers;
      uint32_t found = rank_block<S>(user_words, item_words, steps, limits + g * S::kUsers, items);
      if (found == 0) continue;
      if (first + kWidth > chunk.count) {  // the lanes behind the last item hold zeros, not items
        for (int u = 0; u < S::kUsers; ++u) {
          if (found >> u & 1 && (items[u] &= there) == 0) found &= ~(1u << u);
        }
      }
      rank_collect(args, chunk, tile, g * S::kUsers, first, found, items);
    }
    if (S::kGivesUp && tile.wasted > (first / 16 + 512) * tile.users) return false;
  }
  for (int u = 0; u < tile.users; ++u) rank_flush(args, chunk, tile, u);
  return true;
}

template <class S>
constexpr RankScreenKernel rank_screen_kernel() {
  return {S::kUsers, 16 * S::kVectors, S::kColumns, rank_pack<S>, rank_prepare<S>, rank_run<S>};
}

}  // namespace recsparse::RS_ISA
