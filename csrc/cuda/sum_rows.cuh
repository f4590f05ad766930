// The gradient of the kept values from gradients of rows: shared by lookup and lookup_bag.
#pragma once

#include "cuda/runs.cuh"
#include "cuda/table.cuh"

namespace recsparse::cuda {

// The sum of a row's occurrences (runs.cuh). Bytes moved: dim values an occurrence, an index block and the kept values written
// a distinct row.
template <class T, int W>
struct SumRows {
  using Dense = DenseRow<T, W>;
  using Place = Row<W>;
  static constexpr int kLanes = Dense::kLanes, kSums = Dense::kChunks * Dense::kVector;

  DeviceTable table;
  const T* grad;           // dense rows
  const int64_t* row_of;   // which of them an occurrence refers to, or null: its own
  const float* factor_of;  // what it is times, or null: 1
  T* out;
  bool whole;

  __device__ bool skip() const { return false; }
  __device__ Place begin(int64_t row, int64_t, int64_t) const { return locate_row<W, kLanes>(table, row); }
  __device__ void add(const Place&, int64_t occurrence, float* sums) const {
    const int dim = table.layout.dim;
    const int64_t row = row_of ? row_of[occurrence] : occurrence;
    const float factor = factor_of ? factor_of[occurrence] : 1.0f;
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const int column = Dense::column(c);
      const Vector<T> part = load_vector(grad + row * dim + column, dim - column, whole);
#pragma unroll
      for (int i = 0; i < Dense::kVector; ++i) {
        float& sum = sums[c * Dense::kVector + i];
        sum = ::fmaf(widen(part.x[i]), factor, sum);
      }
    }
  }
  __device__ void finish(const Place& place, int64_t, int, const float* sums) const {
#pragma unroll
    for (int c = 0; c < Dense::kChunks; ++c) {
      const ColumnBits columns = column_bits(place, Dense::column(c));
      T* value = out + place.start + columns.before;
#pragma unroll
      for (int i = 0; i < Dense::kVector; ++i) {
        if (columns.bits >> i & 1) {
          value[__popc(columns.bits & ((1u << i) - 1))] = narrow(T{}, sums[c * Dense::kVector + i]);
        }
      }
    }
  }
};

}  // namespace recsparse::cuda
