// rank: for each user the k items of highest score (dot product of two float rows), items already seen left out. No score
// matrix exists: a block of scores lives in registers, and only items that could be among the k best leave it.
//
// The score of a pair is that of `rank_score` in rank_kernel.h, whatever way the pair was found. The blocks only *screen*:
// they compute scores in another order of summation, or in int8, and let through each item whose score could, by a bound
// on that difference, exceed the user's k-th best so far. So the lists are the same for both screens, any cut of the work
// and any number of threads.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/rank.h"
#include "core/row_layout.h"

namespace recsparse {

enum class RankScreen : int32_t { automatic = 0, float32 = 1, int8 = 2 };

// Rows 0 .. count - 1, from a dense array or from a packed table.
struct RankRows {
  int64_t count;
  const float* dense;  // [count, dim], or null
  TableView table;     // for dense null: row i is row ids[i] of the table, or row first + i without ids
  const void* values;
  ValueType type;
  int64_t capacity;  // length of values
  const int64_t* ids;
  int64_t first;
};

struct RankArgs {
  RankRows users, items;  // fewer than 2^31 items
  int dim;
  const int64_t* seen_indptr;  // [users + 1]
  const int32_t* seen_items;   // ascending in each row
  int64_t k;
  RankScreen screen;
  int32_t* out_items;  // [users, k], best first, equal scores by lower item, -1 where a user has fewer unseen items
  float* out_scores;   // [users, k], -infinity at the padding
};

// The first row that cannot be ranked: it holds a NaN or its Euclidean norm exceeds kRankLargestNorm. Both -1: none.
struct RankFault {
  int64_t user = -1, item = -1;
};

// Working memory: about 128 MiB for the items, whatever their number (at least 9 * 48 * dim bytes), and for each thread
// that of 128 users: their rows and k candidates each. int8 falls back to float32 where this CPU has no int8 kernel.
RankFault rank(const RankArgs& args, int threads);

// ---- between rank.cpp and the variants -----------------------------------------------------------------------------

// What a screen has to know about the items of a panel to bound its error. Norms are rounded up.
struct RankBound {
  float norm;           // largest Euclidean norm of an item
  float residual;       // largest norm of (item - its int8 image)
  float inverse_scale;  // int8 steps per unit
};

// A contiguous part of the items, arranged for one screen.
struct RankChunk {
  int64_t first, count;
  const float* rows;  // [count, dim]
  uint32_t* words;    // [panels][steps][panel width]: the width's items side by side, four bytes of each a step
  RankBound* bounds;  // [panels]
};

constexpr int kRankTileUsers = 128;  // at most: their words stay in the first-level cache beside a panel
constexpr int kRankLanes = 96;       // a multiple of each panel's width; see rank_seed
// Candidates of a user that wait for their score: more than a panel's width and kRankFlush.
constexpr int kRankBuffer = 96;

// A thread's state: up to `capacity` users against a chunk.
struct RankTile {
  int64_t begin;  // first user
  int users;
  int capacity;       // a multiple of the screen's users
  const float* rows;  // [users, dim]
  float* unpacked;    // [capacity, dim], for packed users
  uint32_t* words;    // [capacity / screen's users][steps][screen's users]
  uint32_t* limits;   // [capacity] a block's scores must exceed these; float or int32
  float* threshold;   // [capacity] score of the k-th best so far
  float* norm;        // [capacity] and the next three as RankBound
  float* residual;
  float* inverse_scale;
  float* offset;     // [capacity] constant part of an int8 score
  int32_t* buffer;   // [capacity, kRankBuffer]
  int32_t* waiting;  // [capacity] entries of buffer
  uint64_t* heaps;   // [capacity, k]
  float* lanes;      // [capacity, kRankLanes]
  int64_t* held;     // [capacity] entries of heaps
  int64_t* seen_at;  // [capacity] position in seen_items of the first one not below the next candidate
  int64_t wasted;    // candidates scored in vain
};

// One way to screen, of one instruction set.
struct RankScreenKernel {
  int users, items;  // of a register block; items is the width of a panel. 0: there is no such screen.
  int columns;       // in a step
  // Fills words and bounds of panels [begin, end); returns the first bad item of the chunk or -1.
  int64_t (*pack)(const RankChunk& chunk, int dim, int64_t begin, int64_t end);
  // Reads the tile's users; returns the first bad one or -1.
  int64_t (*prepare)(const RankArgs& args, RankTile& tile);
  // Updates the heaps with the chunk; false if it gave up because the bound lets too many through.
  bool (*run)(const RankArgs& args, const RankChunk& chunk, RankTile& tile);
};

struct RankKernel {
  RankScreenKernel float32, int8;
  void (*read_rows)(const RankRows& rows, int64_t begin, int64_t end, float* out);  // of a packed table
};

}  // namespace recsparse
