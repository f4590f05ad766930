#include "cpu/lightgcn_step.h"

#include <algorithm>

#include "cpu/barrier.h"
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/prefetch.h"
#include "cpu/row_sort.h"
#include "cpu/tasks.h"

namespace recsparse {

RS_CPU_VARIANTS(LightgcnKernel, lightgcn_kernel);

namespace {

constexpr int64_t kUnpackRows = 1024;  // rows of a task
constexpr int64_t kBatchRows = 8;      // rows of a mini-batch differ much in their neighbours
constexpr int64_t kGradientRows = 32;

int64_t pieces(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Phases whose tasks any thread takes; a thread enters the next phase when all tasks of this one are done.
struct Crew {
  explicit Crew(int threads) : barrier(threads), tasks{Tasks(threads), Tasks(threads)} {}
  Barrier barrier;
  Tasks tasks[2];
};

class Worker {
 public:
  Worker(Crew& crew, int rank) : crew_(crew), rank_(rank) {}

  template <class Task>
  void phase(int64_t tasks, Task&& task) {
    Tasks& shared = crew_.tasks[number_++ & 1];
    shared.run(rank_, tasks, task);
    crew_.barrier.wait();
    // Nobody touches these counters before the barrier of the next phase.
    if (rank_ == 0) shared.reset();
  }

  int rank() const { return rank_; }

 private:
  Crew& crew_;
  int rank_;
  int number_ = 0;
};

struct Workspace {
  uint64_t* keys;  // 2 * 3 * batch words
  int64_t* first;
  int32_t* number;
  uint64_t* member;
  float* out;
  float* gradient;
  float* coefficient;
  double* chunk_loss;
  float* sums;  // of the segments
  int64_t bytes;
};

Workspace carve(const LightgcnArgs& args, int64_t segments) {
  const int64_t batch = std::min(args.batch_size, args.count), nodes = args.graph.nodes;
  const int64_t distinct = std::min(3 * batch, nodes), stride = (args.table.layout.dim + 15) / 16 * 16;
  char* p = static_cast<char*>(args.workspace);
  const auto take = [&](int64_t bytes) {
    char* here = p;
    p += (bytes + 63) / 64 * 64;
    return here;
  };
  Workspace work;
  work.keys = reinterpret_cast<uint64_t*>(take(6 * batch * 8));
  work.first = reinterpret_cast<int64_t*>(take((distinct + 1) * 8));
  work.number = reinterpret_cast<int32_t*>(take(nodes * 4));
  work.member = reinterpret_cast<uint64_t*>(take((nodes / 64 + 1) * 8));
  work.out = reinterpret_cast<float*>(take(distinct * stride * 4));
  work.gradient = reinterpret_cast<float*>(take(distinct * stride * 4));
  work.coefficient = reinterpret_cast<float*>(take(batch * 4));
  work.chunk_loss = reinterpret_cast<double*>(take(pieces(batch, kLightgcnTriples) * 8));
  work.sums = reinterpret_cast<float*>(take(segments * stride * 4));
  work.bytes = p - static_cast<char*>(args.workspace);
  return work;
}

// One call: what all threads share.
class Call {
 public:
  Call(const LightgcnArgs& args, bool grow)
      : args_(args),
        kernel_(args.hidden_type == ValueType::bfloat16 ? lightgcn_kernel().bf16 : lightgcn_kernel().f32),
        type_(static_cast<int>(args.value_type)),
        grow_(grow),
        segments_(cut_segments(args.graph)),
        work_(carve(args, static_cast<int64_t>(segments_.size()))) {
    for (size_t s = 0; s < segments_.size(); ++s) {
      if (s == 0 || segments_[s].slot != segments_[s - 1].slot) cut_rows_.push_back(static_cast<int64_t>(s));
    }
    cut_rows_.push_back(static_cast<int64_t>(segments_.size()));
    const int64_t weight_bytes = value_bytes(args.value_type) + 4 * state_per_weight(args.optimizer.kind);
    batch_.args = &args_;
    batch_.far = is_far(weight_bytes * args.capacity + 8 * index_words(args.table.layout));
    batch_.shift = bits_for(static_cast<uint64_t>(3 * std::min(args.batch_size, args.count)));
    batch_.first = work_.first;
    batch_.number = work_.number;
    batch_.member = work_.member;
    batch_.stride = (args.table.layout.dim + 15) / 16 * 16;
    batch_.out = work_.out;
    batch_.gradient = work_.gradient;
    batch_.coefficient = work_.coefficient;
    batch_.chunk_loss = work_.chunk_loss;
    std::fill(work_.member, work_.member + args.graph.nodes / 64 + 1, 0);
  }

  int64_t batches() const { return pieces(args_.count, args_.batch_size); }

  // Mini-batch b. `candidates` of this thread, when scores are wanted and not an update.
  void run(Worker& worker, int64_t b, GrowCandidates* candidates) {
    const int64_t nodes = args_.graph.nodes, unpacks = pieces(nodes, kUnpackRows);
    worker.phase(1 + unpacks, [&](int64_t task) {
      if (task == 0) return start(b);
      kernel_.unpack[type_](batch_, args_.hidden[0], (task - 1) * kUnpackRows, std::min(task * kUnpackRows, nodes));
    });
    int now = 0;  // the array that holds the latest layer
    for (int k = 1; k < args_.layers; ++k) {
      // Layers 1 and 2 find the scaled layer 0 in array 0; the second one replaces it row by row.
      run_layer(worker, {args_.hidden[now], args_.hidden[1 - now], k <= 2 ? args_.hidden[0] : nullptr, nullptr},
                kernel_.forward[type_]);
      now = 1 - now;
    }
    worker.phase(pieces(batch_.distinct, kBatchRows), [&](int64_t task) {
      kernel_.forward_batch[type_](batch_, args_.hidden[now], task * kBatchRows,
                                   std::min((task + 1) * kBatchRows, batch_.distinct));
    });
    worker.phase(pieces(batch_.count, kLightgcnTriples), [&](int64_t task) {
      lightgcn_kernel().score(batch_, task * kLightgcnTriples, std::min((task + 1) * kLightgcnTriples, batch_.count));
    });
    worker.phase(pieces(batch_.distinct, kGradientRows), [&](int64_t task) {
      lightgcn_kernel().row_gradients(batch_, task * kGradientRows,
                                      std::min((task + 1) * kGradientRows, batch_.distinct));
    });
    const void* from = nullptr;
    for (int k = args_.layers; k > 1; --k) {
      void* to = from == args_.hidden[0] ? args_.hidden[1] : args_.hidden[0];
      run_layer(worker, {from, to, nullptr, nullptr}, kernel_.backward);
      from = to;
    }
    run_layer(worker, {from, nullptr, nullptr, candidates}, grow_ ? kernel_.grow[type_] : kernel_.update[type_]);
  }

  // The mean loss of the mini-batch that has just run, and room for the next one. One thread.
  float finish() {
    double loss = 0;
    for (int64_t c = 0; c < pieces(batch_.count, kLightgcnTriples); ++c) loss += work_.chunk_loss[c];
    for (int64_t k = 0; k < batch_.distinct; ++k) {
      const int64_t node = args_.graph.node[batch_.keys[work_.first[k]] >> batch_.shift];
      work_.member[node >> 6] = 0;
    }
    return static_cast<float>(loss * static_cast<double>(batch_.inverse_count));
  }

 private:
  // Sorts the rows of mini-batch b by slot and numbers the distinct ones.
  void start(int64_t b) {
    const int64_t begin = b * args_.batch_size, count = std::min(args_.batch_size, args_.count - begin);
    batch_.users = args_.users + begin;
    batch_.pos = args_.pos + begin;
    batch_.neg = args_.neg + begin;
    batch_.count = count;
    batch_.step = args_.step + b + 1;
    batch_.rounding = rounding_step(args_.seed, batch_.step);
    batch_.inverse_count = 1.0f / static_cast<float>(count);
    const int shift = batch_.shift;
    for (int64_t t = 0; t < count; ++t) {
      const uint64_t occurrence = static_cast<uint64_t>(3 * t);
      const int64_t nodes[3] = {batch_.users[t], args_.item_offset + batch_.pos[t], args_.item_offset + batch_.neg[t]};
      for (int i = 0; i < 3; ++i) {
        const uint64_t slot = static_cast<uint64_t>(args_.graph.slot[nodes[i]]);
        work_.keys[3 * t + i] = slot << shift | (occurrence + i);
      }
    }
    batch_.keys = radix_sort(work_.keys, work_.keys + 3 * count, 3 * count, shift,
                             bits_for(static_cast<uint64_t>(args_.graph.nodes)));
    int64_t distinct = 0;
    for (int64_t k = 0; k < 3 * count; ++k) {
      const uint64_t slot = batch_.keys[k] >> shift;
      if (k > 0 && slot == batch_.keys[k - 1] >> shift) continue;
      const int64_t node = args_.graph.node[slot];
      work_.number[node] = static_cast<int32_t>(distinct);
      work_.member[node >> 6] |= 1ull << (node & 63);
      work_.first[distinct++] = k;
    }
    work_.first[distinct] = 3 * count;
    batch_.distinct = distinct;
  }

  void run_layer(Worker& worker, const LightgcnLayer& layer, const LightgcnSink& sink) {
    const GraphView<int32_t>& graph = args_.graph;
    const int64_t cut = static_cast<int64_t>(segments_.size());
    worker.phase(cut + graph.chunk_count, [&](int64_t task) {
      if (task < cut) {
        kernel_.segment(batch_, layer, segments_[task], work_.sums + task * batch_.stride);
      } else {
        sink.rows(batch_, layer, graph.chunks[task - cut], graph.chunks[task - cut + 1]);
      }
    });
    if (cut == 0) return;
    worker.phase(static_cast<int64_t>(cut_rows_.size()) - 1, [&](int64_t task) {
      const int64_t begin = cut_rows_[task];
      sink.join(batch_, layer, segments_[begin].slot, work_.sums + begin * batch_.stride, cut_rows_[task + 1] - begin);
    });
  }

  const LightgcnArgs args_;
  const LightgcnHidden& kernel_;
  const int type_;
  const bool grow_;
  const std::vector<Segment> segments_;
  std::vector<int64_t> cut_rows_;  // position of each cut row's first segment, and the number of segments
  const Workspace work_;
  LightgcnBatch batch_{};
};

}  // namespace

int64_t lightgcn_workspace_bytes(const LightgcnArgs& args) {
  return carve(args, static_cast<int64_t>(cut_segments(args.graph).size())).bytes;
}

void lightgcn_step(const LightgcnArgs& args, int threads) {
  if (args.count == 0) return;
  Call call(args, false);
  Crew crew(threads);
  parallel_region(threads, [&](int rank) {
    Worker worker(crew, rank);
    for (int64_t b = 0; b < call.batches(); ++b) {
      call.run(worker, b, nullptr);
      worker.phase(1, [&](int64_t) { args.loss[b] = call.finish(); });
    }
  });
}

int64_t lightgcn_grow_scores(const LightgcnArgs& args, int64_t limit, int64_t* keys, float* scores, int threads) {
  if (args.count == 0 || limit <= 0) return 0;
  Call call(args, true);
  Crew crew(threads);
  std::vector<GrowCandidates> candidates(threads, GrowCandidates(limit, args.table.layout.dim));
  parallel_region(threads, [&](int rank) {
    Worker worker(crew, rank);
    call.run(worker, 0, &candidates[rank]);
  });
  for (int rank = 1; rank < threads; ++rank) candidates[0].merge(candidates[rank]);
  return candidates[0].take(keys, scores);
}

}  // namespace recsparse
