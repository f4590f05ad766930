#include <type_traits>

#include "cuda/errors.cuh"
#include "cuda/optimizer_step.h"
#include "cuda/row_keys.cuh"
#include "cuda/runs.cuh"
#include "cuda/update_row.cuh"

namespace recsparse::cuda {
namespace {

// What all kernels of a step share, besides the types of values and optimiser.
struct StepView {
  DeviceTable table;
  float* state;
  const StepNumbers* numbers;
  const uint32_t* bad;
  GradientForm form;
  ValueType grad_type;
  const void* grad;
  bool whole;  // dense rows of the gradient can be read in vectors
};

template <class G>
__device__ __forceinline__ void load_gradient_as(const StepView& view, int64_t at, int columns, float* out) {
  struct alignas(4 * sizeof(G)) Four {
    G x[4];
  };
  const G* p = static_cast<const G*>(view.grad) + at;
  Four four{};
  if (view.whole && columns >= 4) {
    four = *reinterpret_cast<const Four*>(p);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < columns) four.x[i] = p[i];
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = widen(four.x[i]);
}

// Four gradients, of any type, as floats; 0 behind the last of `columns`.
__device__ __forceinline__ void load_gradient(const StepView& view, int64_t at, int columns, float* out) {
  switch (view.grad_type) {
    case ValueType::float16: return load_gradient_as<Half>(view, at, columns, out);
    case ValueType::bfloat16: return load_gradient_as<BFloat16>(view, at, columns, out);
    default: return load_gradient_as<float>(view, at, columns, out);
  }
}

// Adds the lane's columns of a dense row of the gradient.
template <int W>
__device__ __forceinline__ void add_dense_row(const StepView& view, int64_t row, float* sums) {
  using Dense = DenseRow<float, W>;
  const int dim = view.table.layout.dim;
#pragma unroll
  for (int c = 0; c < Dense::kChunks; ++c) {
    float part[4];
    load_gradient(view, row * dim + Dense::column(c), dim - Dense::column(c), part);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[4 * c + i] += part[i];
  }
}

// Updates the lane's kept columns of a row.
template <class Step, int W, class T, class Gradient>
__device__ __forceinline__ void update_columns(const StepView& view, const Step& step, T* values, int64_t row,
                                               const Row<W>& ref, Gradient&& gradient) {
  using Dense = DenseRow<float, W>;
  ColumnBits columns[Dense::kChunks];
#pragma unroll
  for (int c = 0; c < Dense::kChunks; ++c) {
    columns[c] = column_bits(ref, Dense::column(c));
    if (row < 0) columns[c].bits = 0;
  }
  const StepNumbers now = *view.numbers;
  const auto place = [&](int n) {
    const uint32_t bits = columns[n / 4].bits;
    return bits >> (n % 4) & 1 ? columns[n / 4].before + __popc(bits & ((1u << (n % 4)) - 1)) : -1;
  };
  update_row<Dense::kLanes, 4 * Dense::kChunks>(at_step(step, now), now.rounding, values, view.state, row, ref.start,
                                                ref.count, place, [&](int n, float) { return gradient(n, place(n)); });
}

// The rows that a gradient names (runs.cuh). Bytes moved: dim gradients an occurrence; an index block, and the kept weights
// and state, read and written, a distinct row.
template <class T, class Step, int W>
struct UpdateFromRows {
  using Dense = DenseRow<float, W>;
  using Place = Row<W>;
  static constexpr int kLanes = Dense::kLanes, kSums = 4 * Dense::kChunks;

  StepView view;
  Step step;
  T* values;

  __device__ bool skip() const { return *view.bad != 0; }
  __device__ Place begin(int64_t row, int64_t, int64_t) const { return locate_row<W, kLanes>(view.table, row); }
  __device__ void add(const Place&, int64_t occurrence, float* sums) const { add_dense_row<W>(view, occurrence, sums); }
  __device__ void finish(const Place& place, int64_t row, int, const float* sums) const {
    update_columns(view, step, values, row, place, [&](int n, int) { return sums[n]; });
  }
};

// All rows. Grid: grid_for(rows); a group of lanes takes a row. A gradient of some rows is found by bisection of its sorted
// keys. Bytes moved, a row: an index block, the kept weights and state, read and written, and its gradient: dim values of
// a dense one, the kept ones of a packed one.
template <class T, class Step, int W>
__global__ void __launch_bounds__(kThreads, W == 8 ? 2 : 4)
    optimizer_rows_kernel(StepView view, Step step, T* values, Runs runs) {
  if (*view.bad) return;
  using Dense = DenseRow<float, W>;
  constexpr int G = Dense::kLanes, kOwn = 4 * Dense::kChunks;
  const int64_t groups = global_threads() / G, rounds = (view.table.layout.rows + groups - 1) / groups;
  for (int64_t round = 0; round < rounds; ++round) {
    int64_t row = global_thread() / G + round * groups;
    if (row >= view.table.layout.rows) row = -1;
    const Row<W> ref = locate_row<W, G>(view.table, row);
    float sums[kOwn] = {};
    if (row >= 0 && view.form == GradientForm::dense) add_dense_row<W>(view, row, sums);
    if (row >= 0 && view.form == GradientForm::rows) {
      int64_t low = 0, high = runs.count;
      while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        run_row(runs, middle) < row ? low = middle + 1 : high = middle;
      }
      for (; low < runs.count && run_row(runs, low) == row; ++low)
        add_dense_row<W>(view, run_occurrence(runs, low), sums);
    }
    update_columns(view, step, values, row, ref, [&](int n, int place) {
      if (view.form != GradientForm::packed) return sums[n];
      float gradient[4];
      load_gradient(view, static_cast<int64_t>(ref.start) + place, 1, gradient);
      return gradient[0];
    });
  }
}

// A packed gradient of floats, and values that need no row: a plain stream. Grid: grid_for(capacity / 4); a thread takes
// four weights, 16 bytes of each array, so an Adam step has six accesses of 16 bytes in flight a thread. Bytes moved, a weight:
// 4 (gradient), 8 (weight) and 8 a float of state.
template <class Step>
__global__ void __launch_bounds__(kThreads)
    optimizer_stream_kernel(DeviceTable table, Step step, const StepNumbers* numbers, float* __restrict__ values,
                            float* __restrict__ state, const float* __restrict__ grad, bool whole) {
  const int64_t nnz = kept_weights(table);
  const Step now = at_step(step, *numbers);
  constexpr int kState = Step::kState > 0 ? Step::kState : 1;
  for (int64_t i = 4 * global_thread(); i < nnz; i += 4 * global_threads()) {
    const int count = static_cast<int>(smaller(4, nnz - i));
    const bool vectors = whole && count == 4;
    Vector<float> weight = load_vector(values + i, count, vectors);
    const Vector<float> gradient = load_vector(grad + i, count, vectors);
    Vector<float> own[kState];
#pragma unroll
    for (int s = 0; s < Step::kState; ++s) {
      own[s] = load_vector(state + Step::kState * i + 4 * s, Step::kState * count - 4 * s, vectors);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      Scalar w(weight.x[k]), of_weight[kState];
#pragma unroll
      for (int s = 0; s < Step::kState; ++s) {
        const int at = Step::kState * k + s;
        of_weight[s] = own[at / 4].x[at % 4];
      }
      update(now, decayed(now, Scalar(gradient.x[k]), w), w, of_weight);
      weight.x[k] = w.x;
#pragma unroll
      for (int s = 0; s < Step::kState; ++s) {
        const int at = Step::kState * k + s;
        own[at / 4].x[at % 4] = of_weight[s].x;
      }
    }
    store_vector(values + i, weight, count, vectors);
#pragma unroll
    for (int s = 0; s < Step::kState; ++s) {
      store_vector(state + Step::kState * i + 4 * s, own[s], Step::kState * count - 4 * s, vectors);
    }
  }
}

// The numbers of the step; the step counter, unless an id is bad. One thread.
__global__ void optimizer_numbers_kernel(OptimizerStepArgs args, const uint32_t* bad, StepNumbers* numbers) {
  if (global_thread() != 0 || *bad) return;
  *numbers = step_numbers(args.options, *args.step + 1, args.lazy, args.seed);
  ++*args.step;
}

// Grid: grid_for(count), one id a thread and stride. Bytes moved: 8 an id.
__global__ void __launch_bounds__(kThreads)
    optimizer_check_kernel(const int64_t* ids, int64_t count, int64_t rows, ErrorSite site, uint32_t* bad) {
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    if (static_cast<uint64_t>(ids[i]) < static_cast<uint64_t>(rows)) continue;
    report(site, i, ids[i]);
    atomicOr(bad, 1u);
  }
}

struct Scratch {
  uint32_t* bad;
  StepNumbers* numbers;
  RunSpace runs;

  Scratch(const OptimizerStepArgs& args, Workspace& space)
      : bad(space.take<uint32_t>(1)), numbers(space.take<StepNumbers>(1)), runs(space, args.count) {}
};

// Without weight decay a gradient of 0 changes nothing but Adam's moments.
bool only_named_rows(const OptimizerStepArgs& args) {
  if (args.form != GradientForm::rows) return false;
  return args.lazy || (args.options.kind != Optimizer::adam && args.options.weight_decay == 0);
}

template <class Step>
bool is_stream(const OptimizerStepArgs& args) {
  return !Step::kRowState && args.form == GradientForm::packed && args.value_type == ValueType::float32 &&
         args.grad_type == ValueType::float32;
}

bool all_aligned(const OptimizerStepArgs& args) {
  return whole_vectors(static_cast<const float*>(args.values), 4) && whole_vectors(args.state, 4) &&
         whole_vectors(static_cast<const float*>(args.grad), 4);
}

template <class Step>
void apply(const OptimizerStepArgs& args, const Step& step, const StepView& view, const Runs& runs, void* stream) {
  const int64_t rows = view.table.layout.rows;
  if (is_stream<Step>(args)) {
    if (rows == 0) return;
    launch("optimizer_stream", optimizer_stream_kernel<Step>, grid_for(rows * view.table.layout.dim, 4 * kThreads),
           kThreads, stream, view.table, step, view.numbers, static_cast<float*>(args.values), args.state,
           static_cast<const float*>(args.grad), all_aligned(args));
    return;
  }
  with_values(args.value_type, [&](auto storage) {
    using T = decltype(storage);
    with_width(view.table.layout, [&](auto width) {
      constexpr int W = decltype(width)::width;
      T* values = static_cast<T*>(args.values);
      if (only_named_rows(args)) {
        launch_runs("optimizer_named_rows", UpdateFromRows<T, Step, W>{view, step, values}, runs, stream);
      } else {
        launch("optimizer_rows", optimizer_rows_kernel<T, Step, W>,
               grid_for(rows, kThreads / DenseRow<float, W>::kLanes), kThreads, stream, view, step, values, runs);
      }
    });
  });
}

}  // namespace

int64_t optimizer_step_workspace_bytes(const OptimizerStepArgs& args) {
  Workspace space(nullptr);
  const Scratch scratch(args, space);
  return space.bytes();
}

const char* optimizer_step(const OptimizerStepArgs& args, void* stream) {
  Workspace space(args.workspace);
  const Scratch scratch(args, space);
  const DeviceTable table = device_table(args.table);
  clear(scratch.bad, sizeof(uint32_t), stream);
  Runs runs{};
  if (args.form == GradientForm::rows) {
    launch("optimizer_check", optimizer_check_kernel, grid_for(args.count, kThreads), kThreads, stream, args.ids,
           args.count, table.layout.rows, args.bad_ids, scratch.bad);
    if (const char* error = sort_ids(args.ids, args.count, table.layout.rows, -1, scratch.runs, &runs, stream))
      return error;
  }
  launch("optimizer_numbers", optimizer_numbers_kernel, 1, 32, stream, args, scratch.bad, scratch.numbers);
  const bool whole = table.layout.dim % 4 == 0 && reinterpret_cast<uintptr_t>(args.grad) % 16 == 0;
  const StepView view{table, args.state, scratch.numbers, scratch.bad, args.form, args.grad_type, args.grad, whole};
  with_optimizer(args.options, [&](const auto& step) { apply(args, step, view, runs, stream); });
  return launch_error();
}

}  // namespace recsparse::cuda
