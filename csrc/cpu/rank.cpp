#include "cpu/rank.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/rank_heap.h"

namespace recsparse {

RS_CPU_VARIANTS(RankKernel, rank_kernel);

namespace {

constexpr int64_t kChunkBytes = 128 << 20;  // of the items of a chunk: rows and the words of both screens
constexpr int64_t kHeapBytes = 8 << 20;     // of a tile, unless k alone needs more
constexpr int64_t kTilesPerThread = 4;      // at least, so that threads end together
constexpr int64_t kPanelMultiple = 48;      // of every panel width
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

// Uninitialised memory at the start of a cache line.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count = 0) : raw_(new char[static_cast<size_t>(count) * sizeof(T) + 64]) {}
  T* data() const {
    const uintptr_t at = reinterpret_cast<uintptr_t>(raw_.get());
    return reinterpret_cast<T*>((at + 63) / 64 * 64);
  }

 private:
  std::unique_ptr<char[]> raw_;
};

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// The smallest of the values that threads bring.
class First {
 public:
  void bring(int64_t value) {
    int64_t known = value_.load();
    while (value < known && !value_.compare_exchange_weak(known, value)) {
    }
  }
  int64_t get() const { return value_.load(); }

 private:
  std::atomic<int64_t> value_{kNone};
};

// A thread's memory.
struct TileMemory {
  TileMemory(const RankArgs& args, int capacity)
      : unpacked(args.users.dense ? 0 : int64_t(capacity) * args.dim),
        words(int64_t(capacity) * args.dim),
        floats(6 * round_up(capacity, 16) + int64_t(capacity) * kRankLanes),
        buffer(int64_t(capacity) * (kRankBuffer + 1)),
        counts(int64_t(capacity) * (args.k + 2)) {
    const int64_t padded = round_up(capacity, 16);
    tile = RankTile{};
    tile.capacity = capacity;
    tile.unpacked = unpacked.data();
    tile.words = words.data();
    tile.limits = reinterpret_cast<uint32_t*>(floats.data());
    tile.threshold = floats.data() + padded;
    tile.norm = tile.threshold + padded;
    tile.residual = tile.norm + padded;
    tile.inverse_scale = tile.residual + padded;
    tile.offset = tile.inverse_scale + padded;
    tile.lanes = tile.offset + padded;
    tile.buffer = buffer.data();
    tile.waiting = tile.buffer + int64_t(capacity) * kRankBuffer;
    tile.heaps = reinterpret_cast<uint64_t*>(counts.data());
    tile.held = counts.data() + capacity * args.k;
    tile.seen_at = tile.held + capacity;
  }

  Buffer<float> unpacked;
  Buffer<uint32_t> words;
  Buffer<float> floats;
  Buffer<int32_t> buffer;
  Buffer<int64_t> counts;
  RankTile tile;
};

// The lists of a tile's users as the chunks before left them.
void resume(const RankArgs& args, const RankChunk& chunk, RankTile& tile) {
  for (int u = 0; u < tile.users; ++u) {
    const int64_t user = tile.begin + u;
    const int32_t* items = args.out_items + user * args.k;
    const float* scores = args.out_scores + user * args.k;
    int64_t held = 0;
    if (chunk.first > 0) {
      while (held < args.k && items[held] >= 0) ++held;
    }
    // Worst first: an ascending array is a heap.
    for (int64_t i = 0; i < held; ++i) {
      tile.heaps[u * args.k + i] = rank_key(scores[held - 1 - i], items[held - 1 - i]);
    }
    tile.held[u] = held;
    const int32_t* first = args.seen_items + args.seen_indptr[user];
    const int32_t* last = args.seen_items + args.seen_indptr[user + 1];
    tile.seen_at[u] = std::lower_bound(first, last, chunk.first) - args.seen_items;
  }
}

void finish(const RankArgs& args, RankTile& tile) {
  for (int u = 0; u < tile.users; ++u) {
    uint64_t* heap = tile.heaps + u * args.k;
    std::sort(heap, heap + tile.held[u], std::greater<uint64_t>());
    for (int64_t i = 0; i < args.k; ++i) {
      const bool filled = i < tile.held[u];
      const int64_t at = (tile.begin + u) * args.k + i;
      args.out_items[at] = filled ? rank_item(heap[i]) : -1;
      args.out_scores[at] = filled ? rank_key_score(heap[i]) : -std::numeric_limits<float>::infinity();
    }
  }
}

class Ranking {
 public:
  Ranking(const RankArgs& args, int threads)
      : args_(args), kernel_(rank_kernel()), chunk_items_(kChunkBytes / (9 * int64_t(args.dim))), threads_(threads) {
    chunk_items_ = std::max(kPanelMultiple, chunk_items_ / kPanelMultiple * kPanelMultiple);
    chunk_items_ = std::min(chunk_items_, round_up(args.items.count, kPanelMultiple));
    const int64_t step = kernel_.float32.users;
    int64_t capacity = args.users.count / (kTilesPerThread * std::max(1, threads));
    capacity = std::min({capacity, int64_t(kRankTileUsers), kHeapBytes / (8 * args.k)}) / step * step;
    capacity_ = static_cast<int>(std::max(capacity, step));
    tiles_ = (args.users.count + capacity_ - 1) / capacity_;
    threads_ = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, tiles_)));
    for (int t = 0; t < threads_; ++t) memory_.emplace_back(args, capacity_);
    if (!args.items.dense) rows_ = Buffer<float>(chunk_items_ * args.dim);
  }

  RankFault run() {
    bool quick = args_.screen != RankScreen::float32 && kernel_.int8.users > 0;
    for (int64_t first = 0; first < args_.items.count; first += chunk_items_) {
      RankChunk chunk{first, std::min(chunk_items_, args_.items.count - first), nullptr, nullptr, nullptr};
      chunk.rows = read_rows(chunk);
      std::vector<int64_t> tiles(static_cast<size_t>(tiles_));
      for (int64_t t = 0; t < tiles_; ++t) tiles[static_cast<size_t>(t)] = t;
      if (quick) {
        const size_t all = tiles.size();
        tiles = screen(kernel_.int8, int8_, chunk, tiles);
        if (2 * tiles.size() > all) quick = false;
      }
      if (!tiles.empty() && fault_item_.get() == kNone) screen(kernel_.float32, float32_, chunk, tiles);
      if (fault_item_.get() != kNone) return RankFault{-1, first + fault_item_.get()};
      if (fault_user_.get() != kNone) return RankFault{fault_user_.get(), -1};
    }
    return RankFault{};
  }

 private:
  struct Panels {
    Buffer<uint32_t> words;
    Buffer<RankBound> bounds;
    bool made = false;
  };

  const float* read_rows(const RankChunk& chunk) {
    if (args_.items.dense) return args_.items.dense + chunk.first * args_.dim;
    parallel_for(chunk.count, 1024, threads_, [&](int64_t begin, int64_t end) {
      kernel_.read_rows(args_.items, chunk.first + begin, chunk.first + end, rows_.data() + begin * args_.dim);
    });
    return rows_.data();
  }

  // Ranks `tiles` against the chunk. Returns those that the screen gave up, ascending.
  std::vector<int64_t> screen(const RankScreenKernel& by, Panels& panels, RankChunk chunk,
                              const std::vector<int64_t>& tiles) {
    if (!panels.made) {
      const int64_t steps = (args_.dim + by.columns - 1) / by.columns;
      panels.words = Buffer<uint32_t>(chunk_items_ * steps);
      panels.bounds = Buffer<RankBound>(chunk_items_ / by.items);
      panels.made = true;
    }
    chunk.words = panels.words.data();
    chunk.bounds = panels.bounds.data();
    parallel_for((chunk.count + by.items - 1) / by.items, 16, threads_, [&](int64_t begin, int64_t end) {
      const int64_t bad = by.pack(chunk, args_.dim, begin, end);
      if (bad >= 0) fault_item_.bring(bad);
    });
    if (fault_item_.get() != kNone) return {};
    std::atomic<size_t> next{0};
    std::vector<char> given_up(tiles.size());
    parallel_region(threads_, [&](int number) {
      RankTile& tile = memory_[static_cast<size_t>(number)].tile;
      for (size_t i = next++; i < tiles.size(); i = next++) {
        tile.begin = tiles[i] * capacity_;
        tile.users = static_cast<int>(std::min<int64_t>(capacity_, args_.users.count - tile.begin));
        if (fault_user_.get() < tile.begin) continue;
        resume(args_, chunk, tile);
        const int64_t bad = by.prepare(args_, tile);
        if (bad >= 0) {
          fault_user_.bring(bad);
        } else if (by.run(args_, chunk, tile)) {
          finish(args_, tile);
        } else {
          given_up[i] = 1;
        }
      }
    });
    std::vector<int64_t> left;
    for (size_t i = 0; i < tiles.size(); ++i) {
      if (given_up[i]) left.push_back(tiles[i]);
    }
    return left;
  }

  const RankArgs& args_;
  const RankKernel& kernel_;
  int64_t chunk_items_;
  int threads_;
  int capacity_;
  int64_t tiles_;
  std::vector<TileMemory> memory_;
  Buffer<float> rows_;
  Panels float32_, int8_;
  First fault_user_, fault_item_;
};

}  // namespace

RankFault rank(const RankArgs& args, int threads) {
  if (args.items.count == 0) {
    std::fill_n(args.out_items, args.users.count * args.k, -1);
    std::fill_n(args.out_scores, args.users.count * args.k, -std::numeric_limits<float>::infinity());
  }
  if (args.items.count == 0 || args.users.count == 0) return RankFault{};
  return Ranking(args, threads).run();
}

}  // namespace recsparse
