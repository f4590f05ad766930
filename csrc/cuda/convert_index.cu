#include "cuda/build_index.cuh"
#include "cuda/convert_index.h"

namespace recsparse::cuda {
namespace {

struct TableSource {
  using Place = Row<8>;
  DeviceTable table;

  __device__ Place begin(int64_t row) const { return locate_row<8, 32>(table, row); }
  __device__ bool kept(const Place& place, int64_t, int column) const { return column_bits(place, column).bits & 1; }
  __device__ void emit(int64_t, int, uint64_t) const {}
};

}  // namespace

int64_t convert_index_workspace_bytes(const Layout& to) {
  Workspace space(nullptr);
  const BuildSpace build(space, to);
  return space.bytes();
}

const char* convert_index_count(const ConvertIndexArgs& args, void* stream) {
  Workspace space(args.workspace);
  BuildSpace build(space, args.to);
  build.result = reinterpret_cast<BuildResult*>(args.result);
  return count_rows(TableSource{device_table(args.table)}, args.to, build, stream);
}

const char* convert_index_write(const ConvertIndexArgs& args, void* stream) {
  Workspace space(args.workspace);
  const BuildSpace build(space, args.to);
  return write_rows(TableSource{device_table(args.table)}, args.to, build, args.index, args.cols, stream);
}

}  // namespace recsparse::cuda
