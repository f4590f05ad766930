// Builds the index of a table from the mask of each row: count, scan, write; see cpu/build_index.h. `Source` is a POD with
//   using Place                                    what it knows of a row
//   Place begin(row) const                         called by whole warps
//   bool kept(place, row, column) const
//   void emit(row, column, position) const         the kept weight `position` is that of (row, column)
#pragma once

#include "cuda/sort.h"
#include "cuda/table.cuh"

namespace recsparse::cuda {

// Rows that a warp takes at a time: an index block, or eight rows of kind full, which has none.
RS_INLINE int rows_together(const Layout& layout) {
  return layout.kind == IndexKind::full ? 8 : rows_per_block(layout);
}
RS_INLINE int64_t together_count(const Layout& layout) {
  return (layout.rows + rows_together(layout) - 1) / rows_together(layout);
}

// What the masks add up to.
struct BuildResult {
  uint64_t kept;
  uint64_t misfit;  // the first row that the kind cannot hold, or ~0: full wants every column, prefix the first ones
};

struct BuildSpace {
  uint64_t* starts;  // [together_count + 1]
  BuildResult* result;
  char* scan;

  BuildSpace(Workspace& space, const Layout& layout)
      : starts(space.take<uint64_t>(together_count(layout) + 1)),
        result(space.take<BuildResult>(1)),
        scan(space.take<char>(scan_workspace_bytes(together_count(layout) + 1))) {}
};

// Word j of the mask of a row, in every lane of the warp.
template <class Source>
__device__ __forceinline__ uint32_t mask_word(const Source& source, const typename Source::Place& place, int64_t row,
                                              int dim, int j) {
  const int column = 32 * j + static_cast<int>(threadIdx.x % 32);
  return __ballot_sync(kWholeWarp, column < dim && source.kept(place, row, column));
}

// Grid: grid_for(blocks of rows), a warp each. Bytes moved: what the source reads, and 8 a block.
template <class Source>
__global__ void __launch_bounds__(kThreads, 4) count_rows_kernel(Source source, Layout layout, BuildSpace space) {
  const int lane = threadIdx.x % 32, per_block = rows_together(layout);
  const int64_t blocks = together_count(layout);
  for (int64_t block = global_thread() / 32; block <= blocks; block += global_threads() / 32) {
    uint64_t kept = 0;
    for (int64_t row = block * per_block; row < smaller((block + 1) * per_block, layout.rows); ++row) {
      const typename Source::Place place = source.begin(row);
      int count = 0;
      bool prefix = true, ended = false;
      for (int j = 0; 32 * j < layout.dim; ++j) {
        const uint32_t word = mask_word(source, place, row, layout.dim, j);
        const int own = __popc(word);
        prefix = prefix && word == static_cast<uint32_t>(low_bits(own)) && !(ended && own > 0);
        ended = ended || own < 32;
        count += own;
      }
      kept += static_cast<uint64_t>(count);
      const bool fits = layout.kind == IndexKind::full     ? count == layout.dim
                        : layout.kind == IndexKind::prefix ? prefix
                                                           : true;
      if (!fits && lane == 0) {
        atomicMin(reinterpret_cast<unsigned long long*>(&space.result->misfit), static_cast<unsigned long long>(row));
      }
    }
    if (lane == 0) space.starts[block] = kept;  // the one behind the last is 0: the scan leaves the total there
  }
}

// One thread.
static __global__ void build_begin_kernel(BuildSpace space) { *space.result = BuildResult{0, ~0ull}; }
static __global__ void build_end_kernel(BuildSpace space, int64_t blocks) { space.result->kept = space.starts[blocks]; }

// Grid: grid_for(blocks of rows), a warp each, lane = column. Bytes moved: what the source reads and writes, and the index.
template <class Source>
__global__ void __launch_bounds__(kThreads, 4)
    write_rows_kernel(Source source, Layout layout, BuildSpace space, uint64_t* index, uint8_t* cols) {
  const int lane = threadIdx.x % 32, per_block = rows_together(layout), words = mask_words(layout.dim);
  const int block_size = block_words(layout);
  const int64_t blocks = together_count(layout);
  for (int64_t block = global_thread() / 32; block < blocks; block += global_threads() / 32) {
    uint64_t start = space.starts[block];
    uint64_t* own = index + block * block_size;
    for (int i = lane; i < block_size; i += 32) own[i] = i == 0 ? start : 0;
    __syncwarp();
    for (int within = 0; within < per_block; ++within) {
      const int64_t row = block * per_block + within;
      if (row >= layout.rows) break;
      const typename Source::Place place = source.begin(row);
      uint64_t position = start;
      for (int j = 0; j < words; ++j) {
        const uint32_t word = mask_word(source, place, row, layout.dim, j);
        if (word >> lane & 1) {
          const uint64_t at = position + __popc(word & ((1u << lane) - 1));
          source.emit(row, 32 * j + lane, at);
          if (layout.kind == IndexKind::cols8) cols[at] = static_cast<uint8_t>(32 * j + lane);
        }
        if (layout.kind == IndexKind::bits && lane == 0) {
          reinterpret_cast<uint32_t*>(own + 1)[within * words + j] = word;
        }
        position += __popc(word);
      }
      const uint32_t count = static_cast<uint32_t>(position - start);
      if (lane == 0 && (layout.kind == IndexKind::prefix || layout.kind == IndexKind::cols8)) {
        if (layout.dim < 256) {
          reinterpret_cast<uint8_t*>(own + 1)[within] = static_cast<uint8_t>(count);
        } else {
          reinterpret_cast<uint16_t*>(own + 1)[within] = static_cast<uint16_t>(count);
        }
      }
      start = position;
    }
  }
}

// Fills `space`: where each block starts, and the result.
template <class Source>
const char* count_rows(const Source& source, const Layout& layout, const BuildSpace& space, void* stream) {
  const int64_t blocks = together_count(layout);
  launch("build_begin", build_begin_kernel, 1, 32, stream, space);
  launch("count_rows", count_rows_kernel<Source>, grid_for(blocks + 1, kThreads / 32), kThreads, stream, source, layout,
         space);
  if (const char* error = exclusive_scan(ScanArgs{space.starts, space.starts, blocks + 1, space.scan}, stream))
    return error;
  launch("build_end", build_end_kernel, 1, 32, stream, space, blocks);
  return launch_error();
}

// After `count_rows` of the same source.
template <class Source>
const char* write_rows(const Source& source, const Layout& layout, const BuildSpace& space, uint64_t* index,
                       uint8_t* cols, void* stream) {
  launch("write_rows", write_rows_kernel<Source>, grid_for(together_count(layout), kThreads / 32), kThreads, stream,
         source, layout, space, index, cols);
  return launch_error();
}

}  // namespace recsparse::cuda
