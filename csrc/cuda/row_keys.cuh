// Sorted keys of the rows that ids name.
#pragma once

#include "cuda/launch.h"
#include "cuda/runs.h"
#include "cuda/sort.h"

namespace recsparse::cuda {

// Grid: grid_for(count), one id a thread and stride. Bytes moved: 8 read and 8 written an id.
static __global__ void __launch_bounds__(kThreads)
    row_keys_kernel(const int64_t* ids, int64_t count, int64_t rows, int64_t padding, int shift, uint64_t* keys) {
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    int64_t row = static_cast<uint64_t>(ids[i]) < static_cast<uint64_t>(rows) ? ids[i] : 0;
    if (row == padding) row = rows;
    keys[i] = static_cast<uint64_t>(row) << shift | static_cast<uint64_t>(i);
  }
}

// The workspace of a call whose occurrences are sorted by row.
struct RunSpace {
  uint64_t *keys, *sorted;
  uint32_t* long_count;
  int64_t* long_heads;
  char* sort;

  RunSpace(Workspace& space, int64_t count)
      : keys(space.take<uint64_t>(count)),
        sorted(space.take<uint64_t>(count)),
        long_count(space.take<uint32_t>(1)),
        long_heads(space.take<int64_t>(long_room(count))),
        sort(space.take<char>(sort_workspace_bytes(count))) {}
};

// The occurrences of rows in `ids`, sorted; bad ids stand for row 0, those of `padding` for none.
inline const char* sort_ids(const int64_t* ids, int64_t count, int64_t rows, int64_t padding, const RunSpace& space,
                            Runs* runs, void* stream) {
  const int shift = bits_for(static_cast<uint64_t>(count));
  const int row_bits = bits_for(static_cast<uint64_t>(rows) + 1);
  *runs = Runs{space.sorted, count, shift, rows, space.long_count, space.long_heads, ~0ull};
  if (count == 0) return nullptr;
  clear(space.long_count, sizeof(uint32_t), stream);
  launch("row_keys", row_keys_kernel, grid_for(count, kThreads), kThreads, stream, ids, count, rows, padding, shift,
         space.keys);
  return sort_keys(SortArgs{space.keys, space.sorted, count, shift, shift + row_bits, space.sort}, stream);
}

}  // namespace recsparse::cuda
