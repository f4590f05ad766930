#include "host/topk.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "host/parallel.h"

namespace recsparse::host {
namespace {

// Scores tested at once against the threshold: one branch a block, and the inner loop is plain vector code.
constexpr int kBlock = 64;

struct Candidate {
  float score;
  int32_t item;
};

bool better(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.item < b.item);
}

// True if a score of the block beats the threshold or is NaN: both fail `<=`.
bool any_above(const float* scores, float threshold) {
  int found = 0;
  for (int j = 0; j < kBlock; ++j) found |= !(scores[j] <= threshold);
  return found != 0;
}

class RowScan {
 public:
  explicit RowScan(int k) : k_(static_cast<size_t>(k)) { pool_.reserve(2 * k_ + kBlock); }

  // False if the row holds a NaN.
  bool run(const float* scores, int64_t n_items, const int32_t* seen, const int32_t* seen_end) {
    pool_.clear();
    open_ = true;  // until the pool was cut once, every unseen item enters, even one that scores -inf
    threshold_ = -std::numeric_limits<float>::infinity();
    seen_ = seen;
    seen_end_ = seen_end;
    int64_t item = 0;
    for (; item + kBlock <= n_items; item += kBlock) {
      if (!open_ && !any_above(scores + item, threshold_)) continue;
      if (!add(scores, item, item + kBlock)) return false;
    }
    if (!add(scores, item, n_items)) return false;
    cut();
    std::sort(pool_.begin(), pool_.end(), better);
    return true;
  }

  const std::vector<Candidate>& best() const { return pool_; }

 private:
  bool add(const float* scores, int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const float score = scores[item];
      // Items come in ascending order, so an item that only equals the k-th best loses the tie: strictly above enters.
      if (!open_ && score <= threshold_) continue;
      if (std::isnan(score)) return false;
      while (seen_ < seen_end_ && *seen_ < item) ++seen_;
      if (seen_ < seen_end_ && *seen_ == item) continue;
      pool_.push_back({score, static_cast<int32_t>(item)});
      if (pool_.size() >= 2 * k_) cut();
    }
    return true;
  }

  // Keeps the k best and raises the threshold to the worst of them.
  void cut() {
    if (pool_.size() < k_) return;
    std::nth_element(pool_.begin(), pool_.begin() + static_cast<int64_t>(k_) - 1, pool_.end(), better);
    pool_.resize(k_);
    threshold_ = pool_.back().score;
    open_ = false;
  }

  size_t k_;
  bool open_ = true;
  float threshold_ = 0;
  const int32_t* seen_ = nullptr;
  const int32_t* seen_end_ = nullptr;
  std::vector<Candidate> pool_;
};

}  // namespace

int64_t topk_rows(const TopkArgs& args) {
  std::atomic<int64_t> nan_row{args.rows};
  parallel_rows(args.rows, args.threads, [&](int64_t begin, int64_t end) {
    RowScan scan(args.k);
    for (int64_t r = begin; r < end; ++r) {
      const int32_t* seen = args.seen_items + args.seen_indptr[r];
      if (!scan.run(args.scores + r * args.row_stride, args.n_items, seen, args.seen_items + args.seen_indptr[r + 1])) {
        int64_t first = nan_row.load();
        while (r < first && !nan_row.compare_exchange_weak(first, r)) {
        }
        return;
      }
      const std::vector<Candidate>& best = scan.best();
      for (int j = 0; j < args.k; ++j) {
        const bool filled = static_cast<size_t>(j) < best.size();
        args.out_items[r * args.k + j] = filled ? best[j].item : -1;
        args.out_scores[r * args.k + j] = filled ? best[j].score : -std::numeric_limits<float>::infinity();
      }
    }
  });
  return nan_row.load() == args.rows ? -1 : nan_row.load();
}

}  // namespace recsparse::host
