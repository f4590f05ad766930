#include <algorithm>
#include <type_traits>

#include "cuda/choose.cuh"
#include "cuda/lightgcn_layers.cuh"
#include "cuda/lightgcn_step.h"
#include "cuda/mean_losses.cuh"

namespace recsparse::cuda {
namespace {

int64_t full_batch(const LightgcnArgs& args) { return std::min(args.batch_size, args.triples.count); }

int64_t row_width(const LightgcnArgs& args) {
  return with_width(args.table.layout, [](auto width) { return int64_t{32} * decltype(width)::width; });
}

struct Scratch {
  uint32_t* bad;  // [1], not 0: an id is out of range
  int32_t* number;
  RunSpace runs;
  char* scan;
  float *out, *gradient;
  int32_t* occurrences;
  float* coefficient;
  float* softplus;  // [count]
  CutRows cuts;

  Scratch(const LightgcnArgs& args, Workspace& space)
      : bad(space.take<uint32_t>(1)),
        number(space.take<int32_t>(args.graph.nodes)),
        runs(space, keys(args)),
        scan(space.take<char>(scan_workspace_bytes(keys(args)))),
        out(space.take<float>(rows(args) * stride(args))),
        gradient(space.take<float>(rows(args) * stride(args))),
        occurrences(space.take<int32_t>(rows(args))),
        coefficient(space.take<float>(full_batch(args))),
        softplus(space.take<float>(args.triples.count)),
        cuts(space, args.edges, row_width(args)) {}

  static int64_t keys(const LightgcnArgs& args) { return 3 * full_batch(args); }
  static int64_t rows(const LightgcnArgs& args) { return std::min(keys(args), args.graph.nodes); }
  static int64_t stride(const LightgcnArgs& args) { return (args.table.layout.dim + 3) / 4 * 4; }
};

// One call. A mini-batch is `begin`, `forward`, `backward`, and a last product of the caller's choice.
class Call {
 public:
  Call(const LightgcnArgs& args, const Scratch& scratch, void* stream)
      : args_(args), scratch_(scratch), stream_(stream), shift_(bits_for(static_cast<uint64_t>(Scratch::keys(args)))) {
    view_ = LightgcnView{device_table(args.table),
                         args.graph,
                         scratch.bad,
                         scratch.number,
                         scratch.out,
                         scratch.gradient,
                         scratch.occurrences,
                         scratch.coefficient,
                         Scratch::stride(args),
                         1.0f / static_cast<float>(args.layers + 1),
                         args.half,
                         args.table.layout.dim % 4 == 0};
    check_triples(args.triples, scratch.bad, stream);
    cut_rows(args.graph, scratch.cuts, stream);
  }

  const LightgcnView& view() const { return view_; }

  // Sorts and numbers the rows of the triples [first, first + count).
  const char* begin(int64_t first, int64_t count) {
    first_ = first;
    count_ = count;
    const RunSpace& space = scratch_.runs;
    runs_ = Runs{space.sorted, 3 * count, shift_, args_.graph.nodes, space.long_count, space.long_heads};
    clear(scratch_.number, 4 * args_.graph.nodes, stream_);
    clear(space.long_count, sizeof(uint32_t), stream_);
    launch("lightgcn_keys", lightgcn_keys_kernel, grid_for(count, kThreads), kThreads, stream_, args_.triples, first,
           count, shift_, scratch_.bad, space.keys);
    const int row_bits = bits_for(static_cast<uint64_t>(args_.graph.nodes));
    const SortArgs sort{space.keys, space.sorted, 3 * count, shift_, shift_ + row_bits, space.sort};
    if (const char* error = sort_keys(sort, stream_)) return error;
    uint64_t* heads = space.keys;  // sorted by now
    const int64_t blocks = grid_for(3 * count, kThreads);
    launch("lightgcn_heads", lightgcn_heads_kernel, blocks, kThreads, stream_, runs_, scratch_.bad, heads);
    if (const char* error = exclusive_scan(ScanArgs{heads, heads, 3 * count, scratch_.scan}, stream_)) return error;
    launch("lightgcn_numbers", lightgcn_numbers_kernel, blocks, kThreads, stream_, runs_, scratch_.bad, heads,
           scratch_.number);
    return nullptr;
  }

  // The mean of the layers for the rows of the mini-batch.
  template <int W>
  void forward() const {
    with_values(args_.value_type, [&](auto storage) {
      using T = decltype(storage);
      const T* values = static_cast<const T*>(args_.values);
      launch("lightgcn_unpack", lightgcn_unpack_kernel<T, W>,
             grid_for(args_.graph.nodes, kThreads / DenseRow<float, W>::kLanes), kThreads, stream_, view_, values,
             args_.hidden[0]);
      int now = 0;  // the array that holds the latest layer
      for (int k = 1; k < args_.layers; ++k) {
        product("lightgcn_forward", LightgcnForward<T, W>{{view_, args_.hidden[now]}, values, args_.hidden[1 - now]},
                args_.graph.nodes);
        now = 1 - now;
      }
      product("lightgcn_mean", LightgcnMean<T, W>{{view_, args_.hidden[now]}, values, runs_}, runs_.count);
    });
  }

  // Losses, the gradients of the rows, and all products of the backward pass but the last. Returns the array that this one
  // starts from; null: it starts from those gradients.
  template <int W>
  const void* backward() const {
    launch("lightgcn_score", lightgcn_score_kernel<W>, grid_for(count_, kThreads / DenseRow<float, W>::kLanes),
           kThreads, stream_, view_, args_.triples, first_, count_, scratch_.softplus);
    const BprTriples& triples = args_.triples;
    const LightgcnRowGradients<W> gradients{view_, triples.users + first_, triples.pos + first_, triples.neg + first_,
                                            triples.item_offset};
    launch_runs("lightgcn_row_gradients", gradients, runs_, stream_);
    const void* from = nullptr;
    for (int k = args_.layers; k > 1; --k) {
      void* to = from == args_.hidden[0] ? args_.hidden[1] : args_.hidden[0];
      product("lightgcn_backward", LightgcnBackward<W>{{view_, from}, to}, args_.graph.nodes);
      from = to;
    }
    return from;
  }

  template <class Op>
  void product(const char* name, const Op& op, int64_t pieces) const {
    launch_neighbour_sums(name, op, args_.graph, args_.edges, pieces, scratch_.cuts, stream_);
  }

 private:
  const LightgcnArgs& args_;
  const Scratch& scratch_;
  void* stream_;
  int shift_;
  LightgcnView view_{};
  int64_t first_ = 0, count_ = 0;
  Runs runs_{};
};

// ---- training --------------------------------------------------------------------------------------------------------

struct StepScratch {
  Scratch base;
  StepNumbers* numbers;  // [mini-batches]

  StepScratch(const LightgcnStepArgs& args, Workspace& space)
      : base(args.base, space), numbers(space.take<StepNumbers>(batches(args.base))) {}

  static int64_t batches(const LightgcnArgs& args) {
    return (args.triples.count + args.batch_size - 1) / args.batch_size;
  }
};

// Grid: grid_for(batches), one a thread and stride.
__global__ void __launch_bounds__(kThreads)
    lightgcn_steps_kernel(OptimizerOptions options, const int64_t* step, uint64_t seed, int64_t batches,
                          StepNumbers* numbers) {
  for (int64_t b = global_thread(); b < batches; b += global_threads()) {
    numbers[b] = step_numbers(options, *step + b + 1, false, seed);
  }
}

// ---- growth ----------------------------------------------------------------------------------------------------------

struct GrowScratch {
  Scratch base;
  unsigned long long* positive;  // [1] scores above 0
  SelectState* state;
  ChooseSpace choose;
  char* select;

  GrowScratch(const LightgcnGrowArgs& args, Workspace& space)
      : base(args.base, space),
        positive(space.take<unsigned long long>(1)),
        state(space.take<SelectState>(1)),
        choose(space, args.base.graph.nodes * args.base.table.layout.dim),
        select(space.take<char>(select_workspace_bytes())) {}
};

// One thread: how many are wanted.
__global__ void lightgcn_wanted_kernel(SelectState* state, const unsigned long long* positive, const uint32_t* bad,
                                       int64_t slots, int64_t limit, int64_t* found) {
  if (global_thread() != 0) return;
  *found = *bad ? 0 : smaller(limit, static_cast<int64_t>(*positive));
  *state = SelectState{*found > 0 ? slots : 0, *found, 0, 0};
}

struct ChosenSlots {
  const float* slots;
  int64_t* keys;
  float* scores;
  __device__ uint32_t key(int64_t i) const { return float_bits(slots[i]); }
  __device__ void emit(int64_t i, int64_t at) const {
    keys[at] = i;
    scores[at] = slots[i];
  }
};

}  // namespace

int64_t lightgcn_step_workspace_bytes(const LightgcnStepArgs& args) {
  Workspace space(nullptr);
  const StepScratch scratch(args, space);
  return space.bytes();
}

const char* lightgcn_step(const LightgcnStepArgs& args, void* stream) {
  const LightgcnArgs& base = args.base;
  const int64_t total = base.triples.count, full = full_batch(base);
  if (total == 0) return nullptr;
  Workspace space(base.workspace);
  const StepScratch scratch(args, space);
  const int64_t batches = StepScratch::batches(base);
  Call call(base, scratch.base, stream);
  launch("lightgcn_steps", lightgcn_steps_kernel, grid_for(batches, kThreads), kThreads, stream, args.optimizer,
         args.step, args.seed, batches, scratch.numbers);
  for (int64_t b = 0; b < batches; ++b) {
    const int64_t count = std::min(full, total - b * full);
    if (const char* error = call.begin(b * full, count)) return error;
    with_width(base.table.layout, [&](auto width) {
      constexpr int W = decltype(width)::width;
      call.template forward<W>();
      const void* from = call.template backward<W>();
      with_values(base.value_type, [&](auto storage) {
        using T = decltype(storage);
        with_optimizer(args.optimizer, [&](const auto& step) {
          const float decay = args.l2 * (1.0f / static_cast<float>(count));
          using Update = LightgcnUpdate<T, std::decay_t<decltype(step)>, W>;
          const Update op{{call.view(), from}, step, static_cast<T*>(base.values), args.state,
                          scratch.numbers + b, decay};
          call.product("lightgcn_update", op, base.graph.nodes);
        });
      });
    });
  }
  mean_losses(MeanLosses{scratch.base.softplus, scratch.base.bad, total, full, batches, args.loss, args.step}, stream);
  return launch_error();
}

int64_t lightgcn_grow_workspace_bytes(const LightgcnGrowArgs& args) {
  Workspace space(nullptr);
  const GrowScratch scratch(args, space);
  return space.bytes();
}

const char* lightgcn_grow_scores(const LightgcnGrowArgs& args, void* stream) {
  const LightgcnArgs& base = args.base;
  Workspace space(base.workspace);
  const GrowScratch scratch(args, space);
  const int64_t count = base.graph.nodes * base.table.layout.dim;
  Call call(base, scratch.base, stream);
  clear(scratch.positive, sizeof(unsigned long long), stream);
  if (const char* error = call.begin(0, base.triples.count)) return error;
  float* slots = args.slots;
  with_width(base.table.layout, [&](auto width) {
    constexpr int W = decltype(width)::width;
    call.template forward<W>();
    const void* from = call.template backward<W>();
    if (slots == nullptr) slots = static_cast<float*>(from == base.hidden[0] ? base.hidden[1] : base.hidden[0]);
    call.product("lightgcn_grow", LightgcnGrow<W>{{call.view(), from}, slots, scratch.positive}, base.graph.nodes);
  });
  launch("lightgcn_wanted", lightgcn_wanted_kernel, 1, 32, stream, scratch.state, scratch.positive, scratch.base.bad,
         count, args.limit, args.found);
  const SelectArgs wanted{SelectKeys::words, slots, count, scratch.state, ~0u, ErrorSite{}, scratch.select};
  if (const char* error = select(wanted, stream)) return error;
  return choose("lightgcn_choose", ChosenSlots{slots, args.keys, args.scores}, count, scratch.state, scratch.choose,
                stream);
}

}  // namespace recsparse::cuda
