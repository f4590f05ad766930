// Rows are points: a few random vectors over the items, smoothed by steps of the power method on the normalised
// interactions, so that rows with similar neighbourhoods come to lie close to each other. The points are then halved
// along their widest direction until few are left together.
//
// Share of Yelp2018's (Gowalla's) neighbours that are among the last 4,096 distinct ones read, rows by id: .38 (.40); by the
// second singular vector alone .69 (.62), this order .79 (.78), 32 vectors .80; among the last 176: .06 (.12), .06 (.08),
// .13 (.23), .16. Ten steps of the power method: .74 on Yelp2018.
#include "host/locality.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/philox.h"

namespace recsparse::host {
namespace {

constexpr int kVectors = 8;
constexpr int kSteps = 4;      // of the power method
constexpr int64_t kLeaf = 64;  // rows that are no longer halved; 8 and 128 order as well within .01

using Point = std::array<float, kVectors>;

// Makes the columns of x orthogonal to `trivial`, the first singular vector, which says nothing but a node's degree, and to
// each other, all of length 1 (Gram-Schmidt by the Cholesky factor of the Gram matrix). Columns that depend on earlier ones
// become 0. Sums run in order: the same bits everywhere.
void orthonormalise(const std::vector<float>& trivial, std::vector<Point>& x) {
  constexpr int n = kVectors + 1;
  double gram[n][n] = {};
  for (size_t i = 0; i < x.size(); ++i) {
    double row[n] = {trivial[i]};
    for (int a = 0; a < kVectors; ++a) row[a + 1] = x[i][a];
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b <= a; ++b) gram[a][b] += row[a] * row[b];
    }
  }
  double factor[n][n] = {}, inverse[n] = {};  // lower triangular, and 1 / its diagonal or 0
  for (int a = 0; a < n; ++a) {
    for (int b = 0; b <= a; ++b) {
      double left = gram[a][b];
      for (int c = 0; c < b; ++c) left -= factor[a][c] * factor[b][c];
      if (b < a) {
        factor[a][b] = left * inverse[b];
      } else if (left > 1e-9 * gram[a][a]) {
        inverse[a] = 1 / std::sqrt(left);
      }
    }
  }
  for (size_t i = 0; i < x.size(); ++i) {
    double row[n] = {trivial[i] * inverse[0]};
    for (int a = 1; a < n; ++a) {
      double left = x[i][a - 1];
      for (int b = 0; b < a; ++b) left -= factor[a][b] * row[b];
      row[a] = left * inverse[a];
      x[i][a - 1] = static_cast<float>(row[a]);
    }
  }
}

// Sets each point to length 1: directions tell tastes apart, lengths mostly degrees.
void normalise(std::vector<Point>& x) {
  for (Point& point : x) {
    float squares = 0;
    for (float value : point) squares += value * value;
    const float factor = squares > 0 ? 1 / std::sqrt(squares) : 0.0f;
    for (float& value : point) value *= factor;
  }
}

// The unit vector along which the points of `ids` spread most.
template <class Index>
Point widest(const std::vector<Point>& x, const Index* ids, int64_t count) {
  double mean[kVectors] = {}, spread[kVectors][kVectors] = {};
  for (int64_t i = 0; i < count; ++i) {
    const Point& point = x[ids[i]];
    for (int a = 0; a < kVectors; ++a) {
      mean[a] += point[a];
      for (int b = 0; b < kVectors; ++b) spread[a][b] += static_cast<double>(point[a]) * point[b];
    }
  }
  double direction[kVectors];
  for (int a = 0; a < kVectors; ++a) {
    for (int b = 0; b < kVectors; ++b) spread[a][b] -= mean[a] * mean[b] / static_cast<double>(count);
    direction[a] = 1 + a;
  }
  for (int step = 0; step < 30; ++step) {
    double next[kVectors] = {}, squares = 0;
    for (int a = 0; a < kVectors; ++a) {
      for (int b = 0; b < kVectors; ++b) next[a] += spread[a][b] * direction[b];
      squares += next[a] * next[a];
    }
    if (!(squares > 0)) break;  // all points are one
    for (int a = 0; a < kVectors; ++a) direction[a] = next[a] / std::sqrt(squares);
  }
  Point result;
  for (int a = 0; a < kVectors; ++a) result[a] = static_cast<float>(direction[a]);
  return result;
}

// Halves ids[0, count), numbers of points, until at most kLeaf are left, which ascend.
template <class Index>
void halve(const std::vector<Point>& x, std::vector<float>& place, Index* ids, int64_t count) {
  if (count <= kLeaf) {
    std::sort(ids, ids + count);
    return;
  }
  const Point direction = widest(x, ids, count);
  for (int64_t i = 0; i < count; ++i) {
    float along = 0;
    for (int a = 0; a < kVectors; ++a) along += direction[a] * x[ids[i]][a];
    place[ids[i]] = along;
  }
  const int64_t half = count / 2;
  std::nth_element(ids, ids + half, ids + count,
                   [&](Index a, Index b) { return place[a] != place[b] ? place[a] < place[b] : a < b; });
  halve(x, place, ids, half);
  halve(x, place, ids + half, count - half);
}

template <class Index>
void order_side(std::vector<Point>& x, Index first, Index* ids) {
  normalise(x);
  std::vector<float> place(x.size());
  std::iota(ids, ids + x.size(), Index{0});
  halve(x, place, ids, static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) ids[i] += first;
}

}  // namespace

template <class Index>
std::vector<Index> locality_order(const int64_t* indptr, const int32_t* items, int64_t n_users, int64_t n_items,
                                  const std::vector<float>& scale) {
  std::vector<Point> user(n_users), item(n_items);
  const float* item_scale = scale.data() + n_users;
  std::vector<float> root(n_items);  // the first singular vector, at the items
  for (int64_t i = 0; i < n_items; ++i) {
    root[i] = item_scale[i] > 0 ? 1 / item_scale[i] : 0.0f;
    const uint32_t signs = philox(0, static_cast<uint64_t>(i), 0, kStreamOrder).w[0];
    for (int a = 0; a < kVectors; ++a) item[i][a] = signs >> a & 1 ? 1.0f : -1.0f;
  }
  for (int step = 0; step < kSteps; ++step) {
    orthonormalise(root, item);
    for (int64_t i = 0; i < n_items; ++i) {
      for (float& value : item[i]) value *= item_scale[i];
    }
    for (int64_t u = 0; u < n_users; ++u) {
      Point sum{};
      for (int64_t e = indptr[u]; e < indptr[u + 1]; ++e) {
        for (int a = 0; a < kVectors; ++a) sum[a] += item[items[e]][a];
      }
      for (int a = 0; a < kVectors; ++a) user[u][a] = sum[a] * scale[u];
    }
    std::fill(item.begin(), item.end(), Point{});
    for (int64_t u = 0; u < n_users; ++u) {
      Point value = user[u];
      for (float& part : value) part *= scale[u];
      for (int64_t e = indptr[u]; e < indptr[u + 1]; ++e) {
        for (int a = 0; a < kVectors; ++a) item[items[e]][a] += value[a];
      }
    }
    for (int64_t i = 0; i < n_items; ++i) {
      for (float& value : item[i]) value *= item_scale[i];
    }
  }
  std::vector<Index> order(n_users + n_items);
  order_side(user, Index{0}, order.data());
  order_side(item, static_cast<Index>(n_users), order.data() + n_users);
  return order;
}

template std::vector<int32_t> locality_order<int32_t>(const int64_t*, const int32_t*, int64_t, int64_t,
                                                      const std::vector<float>&);
template std::vector<int64_t> locality_order<int64_t>(const int64_t*, const int32_t*, int64_t, int64_t,
                                                      const std::vector<float>&);

}  // namespace recsparse::host
