#include "cuda/neighbour_sums.cuh"
#include "cuda/spmm.h"

namespace recsparse::cuda {
namespace {

constexpr int kTileColumns = 256;  // wider rows are worked on in parts

// One part of the columns. A row is 16-byte vectors over 8 to 32 lanes, so that a warp takes up to four neighbours abreast,
// each in whole lines. Bytes moved, an edge: its id, 4 of scale and the row; each node's out row once.
template <class T, class I, int W>
struct SpmmColumns {
  using Index = I;
  using Id = I;
  using Dense = DenseRow<T, W>;
  static constexpr int kLanes = Dense::kLanes, kSums = Dense::kChunks * Dense::kVector;
  static constexpr int kBlocks = kSums > 4 ? 3 : 4;
  static constexpr bool kFactors = true;
  struct Edge {
    Id row;
    float factor;
  };
  struct Part {
    Vector<T> chunks[Dense::kChunks];
  };

  GraphView<I> graph;
  const T* x;  // at the first column
  T* out;
  int64_t stride;  // columns of a whole row
  int columns;
  bool whole;

  __device__ Edge edge(int64_t at) const {
    const I neighbour = graph.neighbours[at];
    return Edge{neighbour, graph.scale[neighbour]};
  }
  __device__ Part load(Id row) const {
    Part part;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const int column = Dense::column(c);
      part.chunks[c] = load_vector(x + static_cast<int64_t>(row) * stride + column, columns - column, whole);
    }
    return part;
  }
  __device__ void accumulate(const Part& part, float factor, float* sums) const {
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
      sums[s] = ::fmaf(widen(part.chunks[s / Dense::kVector].x[s % Dense::kVector]), factor, sums[s]);
    }
  }

  __device__ bool skip() const { return false; }
  __device__ int64_t rows() const { return graph.nodes; }
  __device__ int64_t slot(int64_t i) const { return i; }
  __device__ bool wanted(int64_t) const { return true; }
  __device__ void add(int64_t begin, int64_t end, float* sums) const { add_neighbours(*this, begin, end, sums); }
  __device__ void finish(int64_t node, const float* sums) const {
    if (threadIdx.x % 32 >= kLanes) return;
    const float own = graph.scale[node];
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const int column = Dense::column(c);
      Vector<T> row;
#pragma unroll
      for (int i = 0; i < Dense::kVector; ++i) row.x[i] = narrow(T{}, own * sums[c * Dense::kVector + i]);
      store_vector(out + node * stride + column, row, columns - column, whole);
    }
  }
};

template <class Index>
CutRows carve(const SpmmArgs<Index>& args, Workspace& space) {
  const int words = mask_words(static_cast<int>(smaller(args.dim, kTileColumns)));
  return CutRows(space, args.edges, words <= 2 ? 64 : words <= 4 ? 128 : 256);
}

}  // namespace

template <class Index>
int64_t spmm_workspace_bytes(const SpmmArgs<Index>& args) {
  Workspace space(nullptr);
  carve(args, space);
  return space.bytes();
}

template <class Index>
const char* spmm(const SpmmArgs<Index>& args, void* stream) {
  Workspace space(args.workspace);
  const CutRows cuts = carve(args, space);
  cut_rows(args.graph, cuts, stream);
  for (int64_t first = 0; first < args.dim; first += kTileColumns) {
    const int columns = static_cast<int>(smaller(args.dim - first, kTileColumns));
    with_values(args.type, [&](auto storage) {
      using T = decltype(storage);
      // The layout of a table with rows of as many columns: only its width matters.
      with_width(Layout{IndexKind::full, columns, args.graph.nodes}, [&](auto width) {
        const T* x = static_cast<const T*>(args.x) + first;
        T* out = static_cast<T*>(args.out) + first;
        const int dim = static_cast<int>(args.dim);
        const bool whole = whole_vectors(x, dim) && whole_vectors(out, dim);
        const SpmmColumns<T, Index, decltype(width)::width> op{args.graph, x, out, args.dim, columns, whole};
        launch_neighbour_sums("spmm", op, args.graph, args.edges, args.graph.nodes, cuts, stream);
      });
    });
  }
  return launch_error();
}

template int64_t spmm_workspace_bytes(const SpmmArgs<int32_t>&);
template int64_t spmm_workspace_bytes(const SpmmArgs<int64_t>&);
template const char* spmm(const SpmmArgs<int32_t>&, void*);
template const char* spmm(const SpmmArgs<int64_t>&, void*);

}  // namespace recsparse::cuda
