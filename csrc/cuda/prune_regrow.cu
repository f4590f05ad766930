#include <algorithm>
#include <vector>

#include "core/float_order.h"
#include "cuda/choose.cuh"
#include "cuda/errors.cuh"
#include "cuda/prune_regrow.h"

namespace recsparse::cuda {
namespace {

// A slab has a million slots at least: its launches must not cost more than its bytes. The emulator's tables are small.
constexpr int64_t kSlabs = 256, kMinSlabSlots = kEmulated ? 1 << 12 : 1 << 20;
// Of all slabs, in percent, those that are in scratch memory at once: the promise of a few percent of extra memory.
constexpr int64_t kGroupPercent = 4;
constexpr int64_t kAll = INT64_MAX;

int64_t slab_blocks(const Layout& layout) {
  const int64_t block_slots = int64_t{rows_per_block(layout)} * layout.dim;
  const int64_t wished = std::max<int64_t>(kMinSlabSlots / block_slots, (block_count(layout) + kSlabs - 1) / kSlabs);
  return std::max<int64_t>(1, wished);
}

struct Scratch {
  uint64_t* fault;   // [1] position << 4 | status of the first wrong candidate
  ErrorRecord* nan;  // [1]
  SelectState *keep, *grow;
  uint32_t* score_keys;   // [candidates]
  int64_t* chosen;        // [candidates] keys that enter, ascending
  uint64_t* new_start;    // [blocks + 1]: counts, then where each index block's weights will start
  uint64_t* ties_before;  // [blocks + 1]: weights equal to the threshold before each block
  ChooseSpace choose;
  char *select, *scan;

  Scratch(const PruneRegrowArgs& args, Workspace& space)
      : fault(space.take<uint64_t>(1)),
        nan(space.take<ErrorRecord>(1)),
        keep(space.take<SelectState>(1)),
        grow(space.take<SelectState>(1)),
        score_keys(space.take<uint32_t>(args.candidates)),
        chosen(space.take<int64_t>(args.candidates)),
        new_start(space.take<uint64_t>(block_count(args.layout) + 1)),
        ties_before(space.take<uint64_t>(block_count(args.layout) + 1)),
        choose(space, args.candidates),
        select(space.take<char>(select_workspace_bytes())),
        scan(space.take<char>(scan_workspace_bytes(block_count(args.layout) + 1))) {}
};

DeviceTable table_of(const PruneRegrowArgs& args) {
  return device_table(TableView{args.layout, args.index, args.cols});
}

// One block: how many weights there are.
__global__ void __launch_bounds__(kThreads)
    prune_begin_kernel(PruneRegrowArgs args, DeviceTable table, Scratch scratch, PruneRegrowPlan* plan) {
  const int64_t nnz = kept_weights(table);
  if (threadIdx.x != 0) return;
  *plan = PruneRegrowPlan{};
  plan->nnz = nnz;
  *scratch.fault = ~0ull;
  *scratch.nan = ErrorRecord{};
  if (nnz < 0 || nnz > args.capacity) {
    plan->result.status = PruneRegrowStatus::bad_nnz;
    plan->result.value = nnz;
  } else if (args.drop < 0 || args.drop > nnz) {
    plan->result.status = PruneRegrowStatus::bad_drop;
    plan->result.value = nnz;
  }
}

// Grid: grid_for(candidates), eight lanes each. Bytes moved, a candidate: 12, an index block, 4 written.
__global__ void __launch_bounds__(kThreads)
    prune_check_kernel(PruneRegrowArgs args, DeviceTable table, Scratch scratch, const PruneRegrowPlan* plan) {
  if (plan->result.status != PruneRegrowStatus::ok) return;
  constexpr int G = 8;
  const int64_t groups = global_threads() / G, rounds = (args.candidates + groups - 1) / groups;
  const int64_t slots = table.layout.rows * table.layout.dim;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t i = global_thread() / G + round * groups;
    const bool live = i < args.candidates;
    const int64_t key = live ? args.keys[i] : -1;
    const bool inside = key >= 0 && key < slots;
    const int64_t row = inside ? key / table.layout.dim : -1;
    const Row<8> ref = locate_row<8, G>(table, row);
    if (!live || threadIdx.x % G != 0) continue;
    const float score = args.scores[i];
    PruneRegrowStatus status = PruneRegrowStatus::ok;
    if (!inside) {
      status = PruneRegrowStatus::key_range;
    } else if (i > 0 && key <= args.keys[i - 1]) {
      status = PruneRegrowStatus::key_order;
    } else if (column_bits(ref, static_cast<int>(key - row * table.layout.dim)).bits & 1) {
      status = PruneRegrowStatus::key_kept;
    } else if ((float_bits(score) & kMagnitudeMask) >= kInfinityKey) {
      status = PruneRegrowStatus::score_infinite;
    }
    if (status != PruneRegrowStatus::ok) {
      atomicMin(reinterpret_cast<unsigned long long*>(scratch.fault),
                static_cast<unsigned long long>(i) << 4 | static_cast<unsigned long long>(status));
    }
    scratch.score_keys[i] = ordered_key(score);
  }
}

// One thread: how many leave and enter, and what is to be selected for that; nothing if something is wrong.
__global__ void prune_decide_kernel(PruneRegrowArgs args, Scratch scratch, PruneRegrowPlan* plan) {
  if (global_thread() != 0) return;
  PruneRegrowResult& result = plan->result;
  *scratch.keep = *scratch.grow = SelectState{0, 0, 0, 0};
  if (result.status != PruneRegrowStatus::ok) return;
  if (*scratch.fault != ~0ull) {
    result.status = static_cast<PruneRegrowStatus>(*scratch.fault & 15);
    result.position = static_cast<int64_t>(*scratch.fault >> 4);
    return;
  }
  const int64_t grown = smaller(args.grow, args.candidates), missing = args.grow - grown;
  const int64_t dropped = args.drop > missing ? args.drop - missing : 0;
  plan->new_nnz = plan->nnz - dropped + grown;
  if (plan->new_nnz > args.capacity) {
    result.status = PruneRegrowStatus::no_capacity;
    result.value = plan->new_nnz;
    return;
  }
  result.dropped = dropped;
  result.grown = grown;
  if (dropped > 0) *scratch.keep = SelectState{plan->nnz, plan->nnz - dropped, 0, 0};
  *scratch.grow = SelectState{args.candidates, grown, 0, 0};
}

// One thread, after the selections.
__global__ void prune_selected_kernel(Scratch scratch, PruneRegrowPlan* plan) {
  if (global_thread() != 0) return;
  if (plan->result.dropped == 0) {
    scratch.keep->threshold = 0;
    scratch.keep->ties = kAll;
  }
  if (scratch.nan->count > 0) {
    plan->result.status = PruneRegrowStatus::weight_nan;
    plan->result.position = static_cast<int64_t>(~scratch.nan->order & ((1ull << 40) - 1));
    plan->result.value = static_cast<int64_t>(scratch.nan->count);
  }
}

struct ChosenCandidates {
  const uint32_t* score_keys;
  const int64_t* keys;
  int64_t* chosen;
  __device__ uint32_t key(int64_t i) const { return score_keys[i]; }
  __device__ void emit(int64_t i, int64_t at) const { chosen[at] = keys[i]; }
};

template <class V>
__device__ __forceinline__ uint32_t magnitude_of(V bits) {
  return sizeof(V) == 4 ? bits & kMagnitudeMask : bits & kMagnitudeMask16;
}

// First chosen key that is not below `key`.
__device__ __forceinline__ int64_t first_chosen(const int64_t* chosen, int64_t count, int64_t key) {
  int64_t low = 0;
  for (int64_t high = count; low < high;) {
    const int64_t middle = low + (high - low) / 2;
    chosen[middle] < key ? low = middle + 1 : high = middle;
  }
  return low;
}

// How many weights of each index block are above and equal to the threshold. Grid: grid_for(blocks), a warp each. Bytes moved:
// the values, 8 of each index block and 16 written.
template <class V>
__global__ void __launch_bounds__(kThreads) prune_count_kernel(DeviceTable table, const V* values, Scratch scratch,
                                                               const PruneRegrowPlan* plan, int64_t blocks) {
  const int lane = threadIdx.x % 32;
  const uint32_t threshold = scratch.keep->threshold;
  for (int64_t block = global_thread() / 32; block <= blocks; block += global_threads() / 32) {
    uint64_t above = 0, equal = 0;
    if (block < blocks && plan->result.status == PruneRegrowStatus::ok) {
      const int64_t begin = static_cast<int64_t>(table.index[block * table.block_words]);
      const int64_t end =
          block + 1 < blocks ? static_cast<int64_t>(table.index[(block + 1) * table.block_words]) : plan->nnz;
      for (int64_t i = begin; i < end; i += 32) {
        const bool inside = i + lane < end;
        const uint32_t key = inside ? magnitude_of(values[i + lane]) : 0;
        above += static_cast<uint64_t>(__popc(__ballot_sync(kWholeWarp, inside && key > threshold)));
        equal += static_cast<uint64_t>(__popc(__ballot_sync(kWholeWarp, inside && key == threshold)));
      }
    }
    if (lane == 0) {
      scratch.new_start[block] = above;
      scratch.ties_before[block] = equal;
    }
  }
}

// How many weights each block will have. Grid: grid_for(blocks), one a thread. Bytes moved: 32 a block.
__global__ void __launch_bounds__(kThreads)
    prune_size_kernel(DeviceTable table, Scratch scratch, const PruneRegrowPlan* plan, int64_t blocks) {
  const int64_t ties = scratch.keep->ties, grown = plan->result.grown;
  const int64_t slots = int64_t{table.per_block} * table.layout.dim;
  for (int64_t block = global_thread(); block < blocks; block += global_threads()) {
    const int64_t before = static_cast<int64_t>(scratch.ties_before[block]);
    const int64_t equal = static_cast<int64_t>(scratch.ties_before[block + 1]) - before;
    const int64_t stay = ties > before ? smaller(ties - before, equal) : 0;
    const int64_t enter =
        first_chosen(scratch.chosen, grown, (block + 1) * slots) - first_chosen(scratch.chosen, grown, block * slots);
    scratch.new_start[block] += static_cast<uint64_t>(stay + enter);
  }
}

__global__ void __launch_bounds__(kThreads)
    prune_slabs_kernel(DeviceTable table, Scratch scratch, const PruneRegrowPlan* plan, int64_t blocks,
                       int64_t per_slab, int64_t slabs, SlabStart* out) {
  for (int64_t slab = global_thread(); slab <= slabs; slab += global_threads()) {
    const int64_t block = smaller(slab * per_slab, blocks);
    const int64_t old_start = block < blocks ? static_cast<int64_t>(table.index[block * table.block_words]) : plan->nnz;
    out[slab] = SlabStart{old_start, static_cast<int64_t>(scratch.new_start[block])};
  }
}

// The columns of a row's keys among the chosen ones from `*first` on, as a mask; steps `*first` past them.
__device__ __forceinline__ void grown_columns(const int64_t* chosen, int64_t count, int64_t* first, int64_t row_key,
                                              int dim, uint32_t (&mask)[8]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) mask[j] = 0;
  bool any = false;
  while (true) {
    const int64_t at = *first + static_cast<int64_t>(threadIdx.x % 32);
    const bool mine = at < count && chosen[at] < row_key + dim;
    const unsigned votes = __ballot_sync(kWholeWarp, mine);
    if (votes == 0) break;
    any = true;
    if (mine) {
      const int column = static_cast<int>(chosen[at] - row_key);
#pragma unroll
      for (int j = 0; j < 8; ++j) mask[j] |= column / 32 == j ? 1u << (column % 32) : 0u;
    }
    *first += __popc(votes);
    if (votes != kWholeWarp) break;
  }
  if (!any) return;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) mask[j] |= __shfl_xor_sync(kWholeWarp, mask[j], step);
  }
}

struct NewBlocks {
  uint64_t words[kThreads / 32][16];
};

struct SlabScratch {
  char* values;
  float* state;
  uint8_t* cols;
};

// Writes what a slab will hold to scratch memory, and its new index blocks, which do not move. Grid: grid_for(blocks), a warp
// an index block, lane = column: ballots say who stays and where it goes. Bytes moved: the slab's index, weights and state,
// each read and written.
template <class V, IndexKind K>
__global__ void __launch_bounds__(kThreads, 4)
    prune_rebuild_kernel(PruneRegrowArgs args, DeviceTable table, Scratch scratch, int64_t grown, int64_t first_block,
                         int64_t blocks, int64_t slab_start, SlabScratch out) {
  NewBlocks& shared_blocks = shared<NewBlocks>();
  const int lane = threadIdx.x % 32, words = table.words, dim = table.layout.dim;
  const uint32_t below = (1u << lane) - 1, threshold = scratch.keep->threshold;
  const int64_t ties = scratch.keep->ties;
  const V* values = static_cast<const V*>(args.values);
  uint64_t* fresh = shared_blocks.words[threadIdx.x / 32];
  for (int64_t b = global_thread() / 32; b < blocks; b += global_threads() / 32) {
    const int64_t block = first_block + b, first_row = block * table.per_block;
    BlockWords<32> held = load_block<K, 8, 32>(table, first_row);
    if (lane < 16) fresh[lane] = lane == 0 ? scratch.new_start[block] : 0;
    __syncwarp();
    int64_t at = static_cast<int64_t>(scratch.new_start[block]) - slab_start;
    int64_t equal_before = static_cast<int64_t>(scratch.ties_before[block]);
    int64_t entering = first_chosen(scratch.chosen, grown, first_row * dim);
    for (int within = 0; within < table.per_block && first_row + within < table.layout.rows; ++within) {
      const int64_t row = first_row + within, row_begin = at;
      held.within = within;
      Row<8> ref = decode_block<K, 8, 32>(table, held, row);
      complete_row<K, 8, 32>(table, ref);
      uint32_t enters[8];
      grown_columns(scratch.chosen, grown, &entering, row * dim, dim, enters);
      int64_t from = static_cast<int64_t>(ref.start);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (j >= words) break;
        const uint32_t word = ref.mask[j];
        const bool had = word >> lane & 1;
        const int64_t source = from + __popc(word & below);
        const V value = had ? values[source] : V{};
        const uint32_t key = magnitude_of(value);
        const unsigned equal = __ballot_sync(kWholeWarp, had && key == threshold);
        const bool tie = (equal >> lane & 1) && equal_before + __popc(equal & below) < ties;
        const bool stays = had && (key > threshold || tie);
        const uint32_t next = __ballot_sync(kWholeWarp, stays) | enters[j];
        if (next >> lane & 1) {
          const int64_t target = at + __popc(next & below);
          reinterpret_cast<V*>(out.values)[target] = stays ? value : V{};
          for (int s = 0; s < args.state_per_weight; ++s) {
            out.state[args.state_per_weight * target + s] =
                stays ? args.state[args.state_per_weight * source + s] : 0.0f;
          }
          if (K == IndexKind::cols8) out.cols[target] = static_cast<uint8_t>(32 * j + lane);
        }
        if (K == IndexKind::bits && lane == 0) reinterpret_cast<uint32_t*>(fresh + 1)[within * words + j] = next;
        equal_before += __popc(equal);
        at += __popc(next);
        from += __popc(word);
      }
      if (K == IndexKind::cols8 && lane == 0) {
        const int64_t length = at - row_begin;
        if (dim < 256) {
          reinterpret_cast<uint8_t*>(fresh + 1)[within] = static_cast<uint8_t>(length);
        } else {
          reinterpret_cast<uint16_t*>(fresh + 1)[within] = static_cast<uint16_t>(length);
        }
      }
    }
    __syncwarp();
    if (lane < table.block_words) args.index[block * table.block_words + lane] = fresh[lane];
    __syncwarp();
  }
}

struct SlabRoom {
  int64_t weights;  // of the largest slab
  int64_t group;    // slabs in flight
};

SlabRoom slab_room(const PruneRegrowArgs& args, const SlabStart* slabs) {
  const int64_t count = prune_regrow_slabs(args.layout);
  SlabRoom room{0, std::max<int64_t>(1, count * kGroupPercent / 100)};
  for (int64_t i = 0; i < count; ++i)
    room.weights = std::max(room.weights, slabs[i + 1].new_start - slabs[i].new_start);
  return room;
}

SlabScratch take_slab(const PruneRegrowArgs& args, int64_t weights, Workspace& space) {
  SlabScratch slab;
  slab.values = space.take<char>(weights * value_bytes(args.value_type));
  slab.state = space.take<float>(weights * args.state_per_weight);
  slab.cols = space.take<uint8_t>(args.layout.kind == IndexKind::cols8 ? weights : 0);
  return slab;
}

template <class V>
void rebuild_slab(const PruneRegrowArgs& args, const Scratch& scratch, int64_t grown, int64_t first_block,
                  int64_t blocks, int64_t slab_start, const SlabScratch& out, void* stream) {
  const auto run = [&](auto kernel) {
    launch("prune_rebuild", kernel, grid_for(blocks, kThreads / 32), kThreads, stream, args, table_of(args), scratch,
           grown, first_block, blocks, slab_start, out);
  };
  args.layout.kind == IndexKind::bits ? run(prune_rebuild_kernel<V, IndexKind::bits>)
                                      : run(prune_rebuild_kernel<V, IndexKind::cols8>);
}

}  // namespace

int64_t prune_regrow_slabs(const Layout& layout) {
  const int64_t per_slab = slab_blocks(layout);
  return (block_count(layout) + per_slab - 1) / per_slab;
}

int64_t prune_regrow_workspace_bytes(const PruneRegrowArgs& args) {
  Workspace space(nullptr);
  const Scratch scratch(args, space);
  return space.bytes();
}

const char* prune_regrow_plan(const PruneRegrowArgs& args, PruneRegrowPlan* plan, SlabStart* slabs, void* stream) {
  Workspace space(args.workspace);
  const Scratch scratch(args, space);
  const DeviceTable table = table_of(args);
  const int64_t blocks = block_count(args.layout);
  launch("prune_begin", prune_begin_kernel, 1, kThreads, stream, args, table, scratch, plan);
  launch("prune_check", prune_check_kernel, grid_for(args.candidates, kThreads / 8), kThreads, stream, args, table,
         scratch, plan);
  launch("prune_decide", prune_decide_kernel, 1, 32, stream, args, scratch, plan);
  const bool words = args.value_type == ValueType::float32;
  const ErrorSite nan{scratch.nan, Fault::select_nan, 0, 0, 0, 0};
  const SelectArgs keep{words ? SelectKeys::magnitudes32 : SelectKeys::magnitudes16,
                        args.values,
                        args.capacity,
                        scratch.keep,
                        infinity_key(args.value_type),
                        nan,
                        scratch.select};
  if (const char* error = select(keep, stream)) return error;
  const SelectArgs grow{SelectKeys::words, scratch.score_keys, args.candidates, scratch.grow, ~0u,
                        ErrorSite{},       scratch.select};
  if (const char* error = select(grow, stream)) return error;
  launch("prune_selected", prune_selected_kernel, 1, 32, stream, scratch, plan);
  const ChosenCandidates candidates{scratch.score_keys, args.keys, scratch.chosen};
  if (const char* error = choose("prune_choose", candidates, args.candidates, scratch.grow, scratch.choose, stream))
    return error;
  const int64_t grid = grid_for(blocks + 1, kThreads / 32);
  if (words) {
    launch("prune_count", prune_count_kernel<uint32_t>, grid, kThreads, stream, table,
           static_cast<const uint32_t*>(args.values), scratch, plan, blocks);
  } else {
    launch("prune_count", prune_count_kernel<uint16_t>, grid, kThreads, stream, table,
           static_cast<const uint16_t*>(args.values), scratch, plan, blocks);
  }
  const ScanArgs ties{scratch.ties_before, scratch.ties_before, blocks + 1, scratch.scan};
  if (const char* error = exclusive_scan(ties, stream)) return error;
  launch("prune_size", prune_size_kernel, grid_for(blocks, kThreads), kThreads, stream, table, scratch, plan, blocks);
  const ScanArgs starts{scratch.new_start, scratch.new_start, blocks + 1, scratch.scan};
  if (const char* error = exclusive_scan(starts, stream)) return error;
  const int64_t count = prune_regrow_slabs(args.layout);
  launch("prune_slabs", prune_slabs_kernel, grid_for(count + 1, kThreads), kThreads, stream, table, scratch, plan,
         blocks, slab_blocks(args.layout), count, slabs);
  return launch_error();
}

int64_t prune_regrow_scratch_bytes(const PruneRegrowArgs& args, const SlabStart* slabs) {
  const SlabRoom room = slab_room(args, slabs);
  Workspace space(nullptr);
  for (int64_t i = 0; i < room.group; ++i) take_slab(args, room.weights, space);
  return space.bytes();
}

const char* prune_regrow_rebuild(const PruneRegrowArgs& args, const PruneRegrowPlan& plan, const SlabStart* slabs,
                                 void* memory, void* stream) {
  Workspace own(args.workspace), space(memory);
  const Scratch scratch(args, own);
  const bool changes =
      plan.result.dropped > 0 || plan.result.grown > 0;  // what lies behind the weights is cleared anyway
  const int64_t count = changes ? prune_regrow_slabs(args.layout) : 0, per_slab = slab_blocks(args.layout);
  const int64_t blocks = block_count(args.layout), bytes = value_bytes(args.value_type), floats = args.state_per_weight;
  std::vector<int64_t> order;
  for (int64_t i = count - 1; i >= 0; --i) {
    if (slabs[i].new_start > slabs[i].old_start) order.push_back(i);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (slabs[i].new_start <= slabs[i].old_start) order.push_back(i);
  }
  const SlabRoom room = slab_room(args, slabs);
  std::vector<SlabScratch> group;
  for (int64_t i = 0; i < room.group; ++i) group.push_back(take_slab(args, room.weights, space));
  for (int64_t first = 0; first < count; first += room.group) {
    const int64_t size = smaller(room.group, count - first);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t slab = order[first + i], first_block = slab * per_slab;
      const int64_t of_slab = smaller(per_slab, blocks - first_block), start = slabs[slab].new_start;
      if (args.value_type == ValueType::float32) {
        rebuild_slab<uint32_t>(args, scratch, plan.result.grown, first_block, of_slab, start, group[i], stream);
      } else {
        rebuild_slab<uint16_t>(args, scratch, plan.result.grown, first_block, of_slab, start, group[i], stream);
      }
    }
    for (int64_t i = 0; i < size; ++i) {
      const int64_t slab = order[first + i], start = slabs[slab].new_start, weights = slabs[slab + 1].new_start - start;
      copy(static_cast<char*>(args.values) + bytes * start, group[i].values, bytes * weights, stream);
      if (floats > 0) copy(args.state + floats * start, group[i].state, 4 * floats * weights, stream);
      if (args.layout.kind == IndexKind::cols8) copy(args.cols + start, group[i].cols, weights, stream);
    }
  }
  const int64_t left = args.capacity - plan.new_nnz;
  clear(static_cast<char*>(args.values) + bytes * plan.new_nnz, bytes * left, stream);
  if (floats > 0) clear(args.state + floats * plan.new_nnz, 4 * floats * left, stream);
  if (args.layout.kind == IndexKind::cols8) clear(args.cols + plan.new_nnz, left, stream);
  return launch_error();
}

}  // namespace recsparse::cuda
