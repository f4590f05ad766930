#include "cuda/build_index.cuh"
#include "cuda/pack.h"

namespace recsparse::cuda {
namespace {

template <class T>
struct DenseSource {
  struct Place {};
  int dim;
  const T* dense;
  const uint8_t* mask;
  T* values;

  __device__ Place begin(int64_t) const { return {}; }
  __device__ bool kept(Place, int64_t row, int column) const { return mask[row * dim + column] != 0; }
  __device__ void emit(int64_t row, int column, uint64_t position) const {
    values[position] = dense[row * dim + column];
  }
};

template <class Body>
auto with_size(int bytes, Body&& body) {
  return bytes == 2 ? body(uint16_t{}) : bytes == 4 ? body(uint32_t{}) : body(uint64_t{});
}

template <class T>
DenseSource<T> source_of(const PackArgs& args) {
  return DenseSource<T>{args.layout.dim, static_cast<const T*>(args.dense), args.mask, static_cast<T*>(args.values)};
}

// Grid: grid_for(rows), a warp each, lane = column. Bytes moved, a row: an index block, its kept values, dim values and dim
// bytes written.
template <class T>
__global__ void __launch_bounds__(kThreads) unpack_kernel(DeviceTable table, const T* values, T* dense, uint8_t* mask) {
  const int lane = threadIdx.x % 32, dim = table.layout.dim;
  for (int64_t row = global_thread() / 32; row < table.layout.rows; row += global_threads() / 32) {
    const Row<8> ref = locate_row<8, 32>(table, row);
    uint64_t position = ref.start;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int column = 32 * j + lane;
      const uint32_t word = ref.mask[j];
      if (column < dim) {
        const bool kept = word >> lane & 1;
        dense[row * dim + column] = kept ? values[position + __popc(word & ((1u << lane) - 1))] : T{};
        mask[row * dim + column] = kept;
      }
      position += __popc(word);
    }
  }
}

}  // namespace

int64_t pack_workspace_bytes(const Layout& layout) {
  Workspace space(nullptr);
  const BuildSpace build(space, layout);
  return space.bytes();
}

const char* pack_count(const PackArgs& args, void* stream) {
  Workspace space(args.workspace);
  BuildSpace build(space, args.layout);
  build.result = reinterpret_cast<BuildResult*>(args.result);
  return with_size(args.value_bytes,
                   [&](auto size) { return count_rows(source_of<decltype(size)>(args), args.layout, build, stream); });
}

const char* pack_write(const PackArgs& args, void* stream) {
  Workspace space(args.workspace);
  const BuildSpace build(space, args.layout);
  return with_size(args.value_bytes, [&](auto size) {
    return write_rows(source_of<decltype(size)>(args), args.layout, build, args.index, args.cols, stream);
  });
}

const char* unpack(const UnpackArgs& args, void* stream) {
  const DeviceTable table = device_table(args.table);
  with_size(args.value_bytes, [&](auto size) {
    using T = decltype(size);
    launch("unpack", unpack_kernel<T>, grid_for(table.layout.rows, kThreads / 32), kThreads, stream, table,
           static_cast<const T*>(args.values), static_cast<T*>(args.dense), args.mask);
  });
  return launch_error();
}

}  // namespace recsparse::cuda
