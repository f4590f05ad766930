// recsparse._host: numpy in, numpy out, no torch. Every loop over data runs without the interpreter lock.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>

#include "core/philox.h"
#include "host/graph.h"
#include "host/interactions.h"
#include "host/metrics.h"
#include "host/synthetic.h"

namespace py = pybind11;

namespace recsparse::host {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

// Hands a vector to numpy without a copy.
template <class T>
py::array_t<T> to_numpy(std::vector<T>&& values) {
  auto* owner = new std::vector<T>(std::move(values));
  const py::capsule release(owner, [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return py::array_t<T>(static_cast<py::ssize_t>(owner->size()), owner->data(), release);
}

void require(bool ok, const char* message) {
  if (!ok) throw py::value_error(message);
}

int64_t rows_of(const Array<int64_t>& indptr) {
  require(indptr.ndim() == 1 && indptr.size() >= 1,
          "indptr must be a one-dimensional int64 array with rows + 1 entries");
  return indptr.size() - 1;
}

// Cheap checks that keep a kernel inside its arrays; check_csr does the thorough ones.
int64_t require_csr(const Array<int64_t>& indptr, const Array<int32_t>& items) {
  const int64_t rows = rows_of(indptr);
  require(items.ndim() == 1, "items must be a one-dimensional int32 array");
  for (int64_t r = 0; r < rows; ++r) require(indptr.at(r) <= indptr.at(r + 1), "indptr must ascend");
  require(indptr.at(0) >= 0 && indptr.at(rows) <= items.size(), "indptr points outside items");
  return rows;
}

py::tuple py_parse_text(const std::string& path) {
  TextInteractions text;
  {
    const py::gil_scoped_release unlocked;
    text = parse_text(path);
  }
  return py::make_tuple(to_numpy(std::move(text.line_users)), to_numpy(std::move(text.line_ends)),
                        to_numpy(std::move(text.items)), text.max_user, text.max_item);
}

py::tuple py_build_csr(const Array<int32_t>& line_users, const Array<int64_t>& line_ends, const Array<int32_t>& items,
                       int64_t n_users) {
  require(line_users.size() == line_ends.size(), "line_users and line_ends must have the same length");
  require(n_users >= 0, "n_users must not be negative");
  const int64_t n_lines = line_users.size();
  require((n_lines == 0 ? 0 : line_ends.at(n_lines - 1)) == items.size(), "line_ends must end at the number of items");
  Csr csr;
  {
    const py::gil_scoped_release unlocked;
    csr = build_csr(line_users.data(), line_ends.data(), n_lines, items.data(), n_users);
  }
  return py::make_tuple(to_numpy(std::move(csr.indptr)), to_numpy(std::move(csr.items)), csr.duplicates);
}

py::tuple py_hold_out(const Array<int64_t>& indptr, const Array<int32_t>& items, double fraction, uint64_t seed) {
  const int64_t rows = require_csr(indptr, items);
  require(fraction >= 0 && fraction < 1, "fraction must be in [0, 1)");
  std::pair<Csr, Csr> out;
  {
    const py::gil_scoped_release unlocked;
    out = hold_out(indptr.data(), items.data(), rows, fraction, seed);
  }
  return py::make_tuple(to_numpy(std::move(out.first.indptr)), to_numpy(std::move(out.first.items)),
                        to_numpy(std::move(out.second.indptr)), to_numpy(std::move(out.second.items)));
}

int64_t py_count_common(const Array<int64_t>& indptr_a, const Array<int32_t>& items_a, const Array<int64_t>& indptr_b,
                        const Array<int32_t>& items_b) {
  const int64_t rows = require_csr(indptr_a, items_a);
  require(require_csr(indptr_b, items_b) == rows, "both matrices must have the same number of rows");
  const py::gil_scoped_release unlocked;
  return count_common(indptr_a.data(), items_a.data(), indptr_b.data(), items_b.data(), rows);
}

void py_check_csr(const Array<int64_t>& indptr, const Array<int32_t>& items, int64_t n_items) {
  const int64_t rows = rows_of(indptr);
  require(items.ndim() == 1, "items must be a one-dimensional int32 array");
  const py::gil_scoped_release unlocked;
  check_csr(indptr.data(), rows, items.data(), items.size(), n_items);
}

py::array_t<double> py_metrics(const Array<int32_t>& ranking, const Array<int64_t>& indptr, const Array<int32_t>& items,
                               const Array<int64_t>& ks) {
  require(ranking.ndim() == 2, "ranking must be a two-dimensional int32 array");
  require(require_csr(indptr, items) == ranking.shape(0), "indptr must have one entry more than ranking has rows");
  for (py::ssize_t c = 0; c < ks.size(); ++c) {
    require(ks.at(c) >= 1 && ks.at(c) <= ranking.shape(1), "ks must lie in 1 .. the width of ranking");
  }
  const py::array_t<double> out({ranking.shape(0), ks.size(), static_cast<py::ssize_t>(kMetrics)});
  const MetricsArgs args{ranking.data(), ranking.shape(0), ranking.shape(1), indptr.data(),
                         items.data(),   ks.data(),        ks.size(),        const_cast<double*>(out.data())};
  const py::gil_scoped_release unlocked;
  ranking_metrics(args);
  return out;
}

void require_stream(int64_t n_users, int64_t n_items, int32_t min_degree, int32_t max_degree) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  require(n_users >= 1 && n_users <= kMax && n_items >= 2 && n_items <= kMax, "sizes must be in 2 .. 2^31 - 1");
  require(1 <= min_degree && min_degree <= max_degree && max_degree < n_items && max_degree <= kMaxSyntheticDegree,
          "degrees must satisfy 1 <= min <= max < n_items and max <= 1024");
}

py::tuple py_materialise(int64_t n_users, int64_t n_items, int32_t min_degree, int32_t max_degree, uint64_t seed,
                         int64_t pairs) {
  require_stream(n_users, n_items, min_degree, max_degree);
  Csr csr;
  {
    const py::gil_scoped_release unlocked;
    csr = materialise(make_synthetic(n_users, n_items, min_degree, max_degree, seed), pairs);
  }
  return py::make_tuple(to_numpy(std::move(csr.indptr)), to_numpy(std::move(csr.items)));
}

py::tuple py_streamed_rows(int64_t n_users, int64_t n_items, int32_t min_degree, int32_t max_degree, uint64_t seed,
                           const Array<int64_t>& users, int32_t skip, int32_t count) {
  require_stream(n_users, n_items, min_degree, max_degree);
  require(users.ndim() == 1, "users must have one dimension");
  require(skip >= 0 && count >= 0 && skip <= kMaxSyntheticDegree && count <= kMaxSyntheticDegree,
          "skip and count must be in 0 .. 1024");
  const bool inside = std::all_of(users.data(), users.data() + users.size(),
                                  [n_users](int64_t user) { return user >= 0 && user < n_users; });
  require(inside, "a user is out of range");
  Csr csr;
  {
    const py::gil_scoped_release unlocked;
    const SyntheticSpec spec = make_synthetic(n_users, n_items, min_degree, max_degree, seed);
    csr = streamed_rows(spec, users.data(), users.size(), skip, count);
  }
  return py::make_tuple(to_numpy(std::move(csr.indptr)), to_numpy(std::move(csr.items)));
}

template <class Index>
py::tuple graph_arrays(const Array<int64_t>& indptr, const Array<int32_t>& items, int64_t n_users, int64_t n_items) {
  Graph<Index> graph;
  {
    const py::gil_scoped_release unlocked;
    graph = build_graph<Index>(indptr.data(), items.data(), n_users, n_items);
  }
  return py::make_tuple(to_numpy(std::move(graph.offsets)), to_numpy(std::move(graph.neighbours)),
                        to_numpy(std::move(graph.node)), to_numpy(std::move(graph.slot)),
                        to_numpy(std::move(graph.scale)), to_numpy(std::move(graph.chunks)));
}

py::tuple py_build_graph(const Array<int64_t>& indptr, const Array<int32_t>& items, int64_t n_items, bool wide) {
  const int64_t n_users = rows_of(indptr);
  require(items.ndim() == 1, "items must be a one-dimensional int32 array");
  {
    const py::gil_scoped_release unlocked;
    check_csr(indptr.data(), n_users, items.data(), items.size(), n_items);
  }
  require(wide || n_users + n_items <= std::numeric_limits<int32_t>::max(), "so many nodes need wide ids");
  return wide ? graph_arrays<int64_t>(indptr, items, n_users, n_items)
              : graph_arrays<int32_t>(indptr, items, n_users, n_items);
}

py::tuple py_philox(uint64_t seed, uint64_t counter, uint32_t counter2, uint32_t stream) {
  const Philox4 r = philox(seed, counter, counter2, stream);
  return py::make_tuple(r.w[0], r.w[1], r.w[2], r.w[3]);
}

}  // namespace
}  // namespace recsparse::host

PYBIND11_MODULE(_host, m) {
  using namespace recsparse::host;
  m.doc() = "Data preparation and metrics over numpy arrays.";
  py::register_exception<DataError>(m, "DataError", PyExc_ValueError);
  m.def("parse_text", &py_parse_text, py::arg("path"),
        "Parse `user item item ...` lines -> (line_users int32, line_ends int64, items int32, max_user, max_item).");
  m.def("build_csr", &py_build_csr, py::arg("line_users").noconvert(), py::arg("line_ends").noconvert(),
        py::arg("items").noconvert(), py::arg("n_users"),
        "Merge lines into (indptr int64, items int32, duplicates): rows ascending, repeated items dropped.");
  m.def("hold_out", &py_hold_out, py::arg("indptr").noconvert(), py::arg("items").noconvert(), py::arg("fraction"),
        py::arg("seed"),
        "Split every row -> (kept indptr, kept items, held indptr, held items); a row always keeps one item.");
  m.def("count_common", &py_count_common, py::arg("indptr_a").noconvert(), py::arg("items_a").noconvert(),
        py::arg("indptr_b").noconvert(), py::arg("items_b").noconvert(), "Number of pairs in both CSR matrices.");
  m.def("check_csr", &py_check_csr, py::arg("indptr").noconvert(), py::arg("items").noconvert(), py::arg("n_items"),
        "Raise DataError unless the arrays are CSR with ascending unique items in [0, n_items).");
  m.def(
      "build_graph", &py_build_graph, py::arg("indptr").noconvert(), py::arg("items").noconvert(), py::arg("n_items"),
      py::arg("wide"),
      "The symmetric graph of users and items -> (offsets int64, neighbours, node, slot, scale float32, chunks int64), "
      "see core/graph.h;\nneighbours, node and slot are int64 if `wide`, else int32.");
  m.def("ranking_metrics", &py_metrics, py::arg("ranking").noconvert(), py::arg("indptr").noconvert(),
        py::arg("items").noconvert(), py::arg("ks").noconvert(),
        "Metrics of every user, float64 [users, len(ks), 5]: recall, ndcg, precision, hit, mrr.");
  m.def("materialise_synthetic", &py_materialise, py::arg("n_users"), py::arg("n_items"), py::arg("min_degree"),
        py::arg("max_degree"), py::arg("seed"), py::arg("pairs"),
        "The generated stream as (indptr, items): exactly `pairs` unique pairs, every item at least once.");
  m.def(
      "streamed_rows", &py_streamed_rows, py::arg("n_users"), py::arg("n_items"), py::arg("min_degree"),
      py::arg("max_degree"), py::arg("seed"), py::arg("users").noconvert(), py::arg("skip"), py::arg("count"),
      "Interactions of some users of the stream as (indptr, items): their own where count is 0, else the `count` that\n"
      "would follow them after `skip` others.");
  m.def("philox", &py_philox, py::arg("seed"), py::arg("counter"), py::arg("counter2"), py::arg("stream"),
        "One Philox4x32-10 block -> four 32-bit words; a draw is a pure function of the arguments.");
}
