// Every CPU kernel on small tables of every kind, without torch: for the sanitizers (`make sanitize`), which need a
// program of their own. Arrays are allocated to the byte, so that a vector that reaches past one is seen. Each case runs
// on 1 and on 3 threads and must give the same bits; what a lookup returns is compared with the dense table.
// RECSPARSE_CPU_ISA chooses the instruction set. Exit status 0: all well.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <type_traits>

#include "core/rows.h"
#include "cpu/bpr_grow_scores.h"
#include "cpu/bpr_step.h"
#include "cpu/convert_index.h"
#include "cpu/dispatch.h"
#include "cpu/inspect.h"
#include "cpu/lightgcn_step.h"
#include "cpu/lookup.h"
#include "cpu/lookup_bag.h"
#include "cpu/optimizer_step.h"
#include "cpu/pack.h"
#include "cpu/prune_regrow.h"
#include "cpu/rank.h"
#include "cpu/sample.h"
#include "cpu/select.h"
#include "cpu/spmm.h"

using namespace recsparse;

// Elements on the heap, exactly `size` of them, zeroed; the address is a multiple of 64 as torch's are.
template <class T>
class Array {
 public:
  explicit Array(int64_t size) : size_(size), data_(allocate(size * sizeof(T))) {
    std::memset(static_cast<void*>(data_), 0, size * sizeof(T));
  }
  Array(const Array& other) : Array(other.size_) {
    if (size_) std::memcpy(static_cast<void*>(data_), other.data_, size_ * sizeof(T));
  }
  Array& operator=(const Array&) = delete;
  ~Array() { std::free(data_); }
  T* data() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }
  bool same(const Array& other) const { return std::memcmp(data_, other.data_, size_ * sizeof(T)) == 0; }

 private:
  static T* allocate(size_t bytes) {
    void* p = nullptr;
    if (posix_memalign(&p, 64, bytes ? bytes : 1) != 0) std::abort();
    return static_cast<T*>(p);
  }
  int64_t size_;
  T* data_;
};

static int failures = 0;

static void check(bool good, const char* what, IndexKind kind, int dim, const char* type) {
  if (good) return;
  std::printf("%s: kind %d, dim %d, %s, %s\n", what, static_cast<int>(kind), dim, type, cpu_isa_name());
  ++failures;
}

constexpr int64_t kRows = 190, kUsers = 80, kTriples = 700, kIds = 1300;
constexpr int kThreads = 3;

static std::mt19937 random_engine(1);

static Array<int64_t> random_ids(int64_t count, int64_t limit) {
  Array<int64_t> ids(count);
  for (int64_t i = 0; i < count; ++i) ids[i] = static_cast<int64_t>(random_engine() % static_cast<uint64_t>(limit));
  return ids;
}

// A packed table of T and the dense rows that it came from. Some rows are empty, some full.
template <class T>
struct Table {
  static constexpr ValueType kType = std::is_same_v<T, Half>       ? ValueType::float16
                                     : std::is_same_v<T, BFloat16> ? ValueType::bfloat16
                                                                   : ValueType::float32;
  Layout layout;
  Array<T> dense;
  Array<uint8_t> mask;
  int64_t capacity;
  Array<uint64_t> index;
  Array<uint8_t> cols;
  Array<T> values;

  Table(IndexKind kind, int dim)
      : layout{kind, dim, kRows},
        dense(kRows * dim),
        mask(kRows * dim),
        capacity(fill()),
        index(index_words(layout)),
        cols(kind == IndexKind::cols8 ? capacity : 0),
        values(capacity) {
    const PackArgs<T> args{layout, dense.data(), mask.data(), index.data(), cols.data(), values.data(), capacity};
    if (pack(args, 1).status != PackResult::ok) std::abort();
  }
  TableView view() const { return TableView{layout, index.data(), cols.data()}; }

 private:
  int64_t fill() {
    int64_t kept = 0;
    for (int64_t row = 0; row < kRows; ++row) {
      const uint32_t share = row % 9 == 2 ? 0 : row % 9 == 5 ? 100 : random_engine() % 40;
      for (int col = 0; col < layout.dim; ++col) {
        bool keep = random_engine() % 100 < share;
        if (layout.kind == IndexKind::full) keep = true;
        if (layout.kind == IndexKind::prefix) keep = col < static_cast<int>(share) * layout.dim / 100;
        mask[row * layout.dim + col] = keep;
        const float value = static_cast<float>(static_cast<int>(random_engine() % 2001) - 1000) / 3000;
        if (keep) dense[row * layout.dim + col] = narrow(T{}, value);
        kept += keep;
      }
    }
    return kept;
  }
};

template <class T>
static void test_table(IndexKind kind, int dim, const char* type) {
  const Table<T> table(kind, dim);
  const auto expect = [&](bool good, const char* what) { check(good, what, kind, dim, type); };
  const Array<int64_t> ids = random_ids(kIds, kRows), users = random_ids(kTriples, kUsers);
  const Array<int64_t> pos = random_ids(kTriples, kRows - kUsers), neg = random_ids(kTriples, kRows - kUsers);
  const Array<T> rows(kIds * dim), other_rows(kIds * dim);
  for (int threads : {1, kThreads}) {
    lookup(LookupArgs<T>{table.view(), table.values.data(), table.capacity, ids.data(), kIds, rows.data()}, threads);
    bool equal = true;
    for (int64_t i = 0; i < kIds; ++i) {
      equal &= std::memcmp(rows.data() + i * dim, table.dense.data() + ids[i] * dim, dim * sizeof(T)) == 0;
    }
    expect(equal, "lookup");
  }
  const Array<uint64_t> workspace(2 * kIds);
  const Array<T> grads[2] = {Array<T>(table.capacity), Array<T>(table.capacity)};
  for (int i = 0; i < 2; ++i) {
    lookup_backward(
        LookupBackwardArgs<T>{table.view(), rows.data(), ids.data(), kIds, grads[i].data(), workspace.data(), -1},
        i ? kThreads : 1);
  }
  expect(grads[0].same(grads[1]), "lookup_backward");

  Array<int64_t> offsets(kIds / 7 + 2);
  for (int64_t i = 0; i < kIds / 7 + 2; ++i) offsets[i] = std::min(7 * i, kIds);
  const BagIds<T> bags{table.view(), ids.data(), kIds, offsets.data(), kIds / 7 + 1, nullptr, true, 3};
  const Array<T> sums[2] = {Array<T>(bags.bags * dim), Array<T>(bags.bags * dim)};
  for (int i = 0; i < 2; ++i) {
    lookup_bag(LookupBagArgs<T>{bags, table.values.data(), table.capacity, sums[i].data()}, i ? kThreads : 1);
  }
  expect(sums[0].same(sums[1]), "lookup_bag");
  const Array<T> bag_grads[2] = {Array<T>(table.capacity), Array<T>(table.capacity)};
  const Array<T> weight_grads[2] = {Array<T>(kIds), Array<T>(kIds)};
  for (int i = 0; i < 2; ++i) {
    const Array<int64_t> bag_workspace(3 * kIds);
    const Array<ArithmeticType<T>> scales(kIds);
    lookup_bag_backward(
        LookupBagBackwardArgs<T>{bags, sums[0].data(), bag_grads[i].data(), bag_workspace.data(), scales.data()},
        i ? kThreads : 1);
    BagIds<T> plain = bags;
    plain.mean = false;
    lookup_bag_weights_backward(LookupBagWeightsBackwardArgs<T>{plain, table.values.data(), table.capacity,
                                                                sums[0].data(), weight_grads[i].data()},
                                i ? kThreads : 1);
  }
  expect(bag_grads[0].same(bag_grads[1]) && weight_grads[0].same(weight_grads[1]), "lookup_bag, backward");

  for (IndexKind to : {IndexKind::full, IndexKind::prefix, IndexKind::bits, IndexKind::cols8}) {
    if (misfit_row(table.view(), to, kThreads) >= 0) continue;
    const Layout layout{to, dim, kRows};
    const Array<uint64_t> index(index_words(layout));
    const Array<uint8_t> cols(to == IndexKind::cols8 ? table.capacity : 0);
    convert_index(ConvertIndexArgs{table.view(), layout, index.data(), cols.data()}, kThreads);
    const TableView converted{layout, index.data(), cols.data()};
    expect(check_index(converted, table.capacity, kThreads).empty(), "convert_index");
    const Array<T> again(kIds * dim);
    lookup(LookupArgs<T>{converted, table.values.data(), table.capacity, ids.data(), kIds, again.data()}, kThreads);
    expect(again.same(rows), "convert_index, lookup");
  }

  const OptimizerOptions adam{Optimizer::adam, 0.01, 0.9, 0.999, 1e-8, 0};
  const Array<T> stepped[2] = {Array<T>(table.values), Array<T>(table.values)};
  const Array<float> moments[2] = {Array<float>(2 * table.capacity), Array<float>(2 * table.capacity)};
  for (int i = 0; i < 2; ++i) {
    const int threads = i ? kThreads : 1;
    Array<float> loss(3);
    BprStepArgs args{table.view(),
                     Table<T>::kType,
                     stepped[i].data(),
                     moments[i].data(),
                     users.data(),
                     pos.data(),
                     neg.data(),
                     kTriples,
                     250,
                     table.capacity,
                     kUsers,
                     0.01f,
                     adam,
                     0,
                     7,
                     loss.data(),
                     nullptr};
    const Array<char> scratch(bpr_step_workspace_bytes(args, threads));
    args.workspace = scratch.data();
    bpr_step(args, threads);
  }
  expect(stepped[0].same(stepped[1]) && moments[0].same(moments[1]), "bpr_step");

  const int64_t limit = 500;
  const Array<int64_t> keys[2] = {Array<int64_t>(limit), Array<int64_t>(limit)};
  const Array<float> scores[2] = {Array<float>(limit), Array<float>(limit)};
  const Array<uint64_t> sort(6 * kTriples);
  const Array<float> coefficient(kTriples);
  int64_t candidates = 0;
  for (int i = 0; i < 2; ++i) {
    candidates = bpr_grow_scores(
        BprGrowScoresArgs{table.view(), Table<T>::kType, table.values.data(), users.data(), pos.data(), neg.data(),
                          kTriples, kUsers, limit, keys[i].data(), scores[i].data(), sort.data(), coefficient.data()},
        i ? kThreads : 1);
  }
  expect(keys[0].same(keys[1]) && scores[0].same(scores[1]), "bpr_grow_scores");

  if (kind != IndexKind::bits && kind != IndexKind::cols8) return;
  const int64_t amount = std::min(candidates, table.capacity / 3);
  const Array<uint64_t> indices[2] = {Array<uint64_t>(table.index), Array<uint64_t>(table.index)};
  const Array<uint8_t> cols[2] = {Array<uint8_t>(table.cols), Array<uint8_t>(table.cols)};
  for (int i = 0; i < 2; ++i) {
    const PruneRegrowResult result =
        prune_regrow(PruneRegrowArgs{table.layout, indices[i].data(), cols[i].data(), Table<T>::kType,
                                     stepped[i].data(), moments[i].data(), 2, table.capacity, keys[i].data(),
                                     scores[i].data(), candidates, amount, amount},
                     i ? kThreads : 1);
    expect(result.status == PruneRegrowStatus::ok && result.grown == amount, "prune_regrow");
  }
  expect(indices[0].same(indices[1]) && cols[0].same(cols[1]) && stepped[0].same(stepped[1]), "prune_regrow, threads");
}

template <class T>
static void test_optimizers(IndexKind kind, int dim, const char* type) {
  const Table<T> table(kind, dim);
  const Array<int64_t> ids = random_ids(kIds, kRows);
  const Array<float> dense(std::max<int64_t>(kIds, kRows) * dim);
  for (int64_t i = 0; i < kIds * dim; ++i) dense[i] = static_cast<float>(random_engine() % 1000) / 1000;
  for (int optimizer = 0; optimizer < kOptimizers; ++optimizer) {
    const OptimizerOptions options{static_cast<Optimizer>(optimizer), 0.01, 0.9, 0.999, 1e-8, 0.1};
    for (GradientForm form : {GradientForm::packed, GradientForm::dense, GradientForm::rows}) {
      const Array<T> values[2] = {Array<T>(table.values), Array<T>(table.values)};
      for (int i = 0; i < 2; ++i) {
        const Array<float> state(state_floats(options.kind, table.capacity, kRows));
        const Array<float> packed(table.capacity);
        const Array<uint64_t> workspace(2 * kIds);
        OptimizerStepArgs args{table.view(),
                               Table<T>::kType,
                               values[i].data(),
                               state.data(),
                               table.capacity,
                               form,
                               ValueType::float32,
                               form == GradientForm::packed ? packed.data() : dense.data(),
                               ids.data(),
                               kIds,
                               options,
                               form == GradientForm::rows,
                               1,
                               7,
                               workspace.data()};
        optimizer_step(args, i ? kThreads : 1);
      }
      check(values[0].same(values[1]), "optimizer_step", kind, dim, type);
    }
  }
}

static void test_select() {
  const int64_t n = 200003;
  const Array<float> values(n);
  for (int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(random_engine() % 5000) - 2500;
  for (int64_t size : {int64_t{1}, int64_t{1001}, n}) {
    const Array<float> part(size);
    std::memcpy(part.data(), values.data(), size * sizeof(float));
    const auto one = select_magnitude(ValueType::float32, part.data(), size, (size + 1) / 2, 1);
    const auto many = select_magnitude(ValueType::float32, part.data(), size, (size + 1) / 2, kThreads);
    check(one.threshold == many.threshold && one.ties == many.ties, "select", IndexKind::full, 0, "float");
  }
}

// A bipartite graph whose first item has more neighbours than a segment holds; slots in the order of ids.
struct SmallGraph {
  static constexpr int64_t kGraphUsers = kSegmentEdges + 100, kGraphItems = 30, kNodes = kGraphUsers + kGraphItems;
  Array<int64_t> offsets;
  Array<int32_t> neighbours, node, slot;
  Array<float> scale;
  Array<int64_t> chunks;

  SmallGraph()
      : offsets(kNodes + 1), neighbours(4 * kGraphUsers), node(kNodes), slot(kNodes), scale(kNodes), chunks(3) {
    // Each user has item 0 and another one. The long row comes first.
    for (int64_t s = 0; s < kNodes; ++s) node[s] = static_cast<int32_t>((s + kGraphUsers) % kNodes);
    for (int64_t s = 0; s < kNodes; ++s) slot[node[s]] = static_cast<int32_t>(s);
    int64_t at = 0;
    for (int64_t s = 0; s < kNodes; ++s) {
      const int64_t begin = at, item = node[s] - kGraphUsers;
      if (item < 0) {
        neighbours[at++] = static_cast<int32_t>(kGraphUsers);
        neighbours[at++] = static_cast<int32_t>(kGraphUsers + 1 + node[s] % (kGraphItems - 1));
      } else {
        for (int64_t u = 0; u < kGraphUsers; ++u) {
          if (item == 0 || u % (kGraphItems - 1) == item - 1) neighbours[at++] = static_cast<int32_t>(u);
        }
      }
      offsets[s + 1] = at;
      scale[node[s]] = 1.0f / static_cast<float>(at - begin);
    }
    chunks[0] = 1, chunks[1] = 500, chunks[2] = kNodes;
  }
  GraphView<int32_t> view() const {
    return {kNodes, offsets.data(), neighbours.data(), node.data(), slot.data(), scale.data(), chunks.data(), 2};
  }
};

template <class T>
static void test_graph(int dim, const char* type) {
  const SmallGraph graph;
  const int64_t nodes = SmallGraph::kNodes, users = SmallGraph::kGraphUsers;
  const Array<T> x(nodes * dim), out[2] = {Array<T>(nodes * dim), Array<T>(nodes * dim)};
  for (int64_t i = 0; i < nodes * dim; ++i) x[i] = narrow(T{}, static_cast<float>(random_engine() % 100) / 100);
  for (int i = 0; i < 2; ++i) {
    spmm(SpmmArgs<T, int32_t>{graph.view(), x.data(), dim, out[i].data()}, i ? kThreads : 1);
  }
  check(out[0].same(out[1]), "spmm", IndexKind::full, dim, type);

  const Array<int64_t> user = random_ids(kTriples, users), pos = random_ids(kTriples, SmallGraph::kGraphItems);
  const Array<int64_t> neg = random_ids(kTriples, SmallGraph::kGraphItems);
  for (ValueType hidden_type : {ValueType::float32, ValueType::bfloat16}) {
    for (int layers : {1, 4}) {
      const Array<T> values[2] = {Array<T>(x), Array<T>(x)};
      const Array<int64_t> keys[2] = {Array<int64_t>(100), Array<int64_t>(100)};
      const Array<float> scores[2] = {Array<float>(100), Array<float>(100)};
      for (int i = 0; i < 2; ++i) {
        const Array<float> moments(2 * nodes * dim), loss(3);
        const Array<char> hidden[2] = {Array<char>(nodes * dim * value_bytes(hidden_type)),
                                       Array<char>(nodes * dim * value_bytes(hidden_type))};
        LightgcnArgs args{};
        args.table = TableView{Layout{IndexKind::full, dim, nodes}, nullptr, nullptr};
        args.value_type = Table<T>::kType;
        args.values = values[i].data();
        args.state = moments.data();
        args.capacity = nodes * dim;
        args.graph = graph.view();
        args.layers = layers;
        args.hidden_type = hidden_type;
        args.hidden[0] = hidden[0].data(), args.hidden[1] = hidden[1].data();
        args.users = user.data(), args.pos = pos.data(), args.neg = neg.data();
        args.count = kTriples, args.batch_size = 250, args.item_offset = users;
        args.l2 = 0.01f;
        args.optimizer = OptimizerOptions{Optimizer::adam, 0.01, 0.9, 0.999, 1e-8, 0};
        args.seed = 7;
        args.loss = loss.data();
        const Array<char> scratch(lightgcn_workspace_bytes(args));
        args.workspace = scratch.data();
        lightgcn_step(args, i ? kThreads : 1);
        args.batch_size = kTriples;
        const Array<char> larger(lightgcn_workspace_bytes(args));
        args.workspace = larger.data();
        lightgcn_grow_scores(args, 100, keys[i].data(), scores[i].data(), i ? kThreads : 1);
      }
      check(values[0].same(values[1]), "lightgcn_step", IndexKind::full, dim, type);
      check(keys[0].same(keys[1]) && scores[0].same(scores[1]), "lightgcn_grow_scores", IndexKind::full, dim, type);
    }
  }
}

static void test_sample() {
  const int64_t rows = 40, items = 90, count = 3001;
  const Array<int64_t> indptr(rows + 1), users(rows);
  for (int64_t row = 0; row < rows; ++row) indptr[row + 1] = indptr[row] + 1 + row * 2;
  const Array<int32_t> positives(indptr[rows]);
  for (int64_t row = 0; row < rows; ++row) {
    users[row] = row;
    for (int64_t i = indptr[row]; i < indptr[row + 1]; ++i) positives[i] = static_cast<int32_t>(i - indptr[row]) + 3;
  }
  for (SampleMode mode : {SampleMode::users, SampleMode::interactions}) {
    const Array<int64_t> drawn[2][3] = {{Array<int64_t>(count), Array<int64_t>(count), Array<int64_t>(count)},
                                        {Array<int64_t>(count), Array<int64_t>(count), Array<int64_t>(count)}};
    for (int i = 0; i < 2; ++i) {
      const cpu::SampleArgs args{indptr.data(), positives.data(), users.data(), rows, indptr[rows], items, 5, 11, count,
                                 mode,          i ? kThreads : 1};
      if (cpu::sample(args, cpu::SampleOut{drawn[i][0].data(), drawn[i][1].data(), drawn[i][2].data()}) >= 0)
        std::abort();
    }
    for (int j = 0; j < 3; ++j) check(drawn[0][j].same(drawn[1][j]), "sample", IndexKind::full, 0, "int64");
  }
}

template <class T>
static void test_rank(IndexKind kind, int dim, const char* type) {
  constexpr int64_t kItems = kRows - kUsers, kLength = 20;
  const Table<T> table(kind, dim);
  const Array<int64_t> users = random_ids(kIds, kUsers);
  Array<int64_t> indptr(kIds + 1);
  for (int64_t u = 0; u < kIds; ++u) indptr[u + 1] = indptr[u] + u % 3;
  Array<int32_t> seen(indptr[kIds]);
  for (int64_t u = 0; u < kIds; ++u) {
    for (int64_t i = indptr[u]; i < indptr[u + 1]; ++i) seen[i] = static_cast<int32_t>(u % 50 + 7 * (i - indptr[u]));
  }
  RankArgs args{};
  args.items =
      RankRows{kItems, nullptr, table.view(), table.values.data(), table.kType, table.capacity, nullptr, kUsers};
  args.users = args.items;
  args.users.count = kIds;
  args.users.ids = users.data();
  args.dim = dim;
  args.seen_indptr = indptr.data();
  args.seen_items = seen.data();
  args.k = kLength;
  const auto run = [&](RankScreen screen, int threads) {
    std::pair<Array<int32_t>, Array<float>> out{kIds * kLength, kIds * kLength};
    args.screen = screen;
    args.out_items = out.first.data();
    args.out_scores = out.second.data();
    const RankFault fault = rank(args, threads);
    check(fault.user < 0 && fault.item < 0, "rank found a fault", kind, dim, type);
    return out;
  };
  const auto first = run(RankScreen::float32, 1);
  for (const auto& other :
       {run(RankScreen::float32, kThreads), run(RankScreen::automatic, 1), run(RankScreen::automatic, kThreads)}) {
    check(other.first.same(first.first) && other.second.same(first.second), "rank", kind, dim, type);
  }
}

int main() {
  for (IndexKind kind : {IndexKind::full, IndexKind::prefix, IndexKind::bits, IndexKind::cols8}) {
    for (int dim : {1, 7, 33, 64, 100, 128, 225, 256}) {
      test_table<float>(kind, dim, "float");
      test_table<Half>(kind, dim, "half");
      test_table<BFloat16>(kind, dim, "bfloat16");
      test_rank<float>(kind, dim, "float");
      test_rank<Half>(kind, dim, "half");
      test_optimizers<float>(kind, dim, "float");
      test_optimizers<Half>(kind, dim, "half");
    }
  }
  test_select();
  test_sample();
  test_graph<float>(33, "float");
  test_graph<BFloat16>(64, "bfloat16");
  std::printf("%s: %s\n", cpu_isa_name(), failures ? "failed" : "ok");
  return failures != 0;
}
