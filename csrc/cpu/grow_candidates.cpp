#include "cpu/grow_candidates.h"

#include <algorithm>
#include <cmath>

namespace recsparse {

// A total order, so that the best are the same set however the rows were shared out.
static bool better(const GrowCandidate& a, const GrowCandidate& b) {
  return a.score != b.score ? a.score > b.score : a.key < b.key;
}

// Room for half as many again, so that a cut is paid for by many offers.
GrowCandidates::GrowCandidates(int64_t limit, int dim)
    : limit_(limit), room_(limit + std::max<int64_t>(limit / 2, 64 * dim) - dim) {}

void GrowCandidates::offer(const GrowCandidate* candidates, int count) {
  best_.insert(best_.end(), candidates, candidates + count);
  if (static_cast<int64_t>(best_.size()) > room_) cut();
}

void GrowCandidates::merge(const GrowCandidates& other) {
  best_.insert(best_.end(), other.best_.begin(), other.best_.end());
}

int64_t GrowCandidates::take(int64_t* keys, float* scores) {
  cut();
  std::sort(best_.begin(), best_.end(), [](const GrowCandidate& a, const GrowCandidate& b) { return a.key < b.key; });
  for (size_t i = 0; i < best_.size(); ++i) {
    keys[i] = best_[i].key;
    scores[i] = best_[i].score;
  }
  return static_cast<int64_t>(best_.size());
}

void GrowCandidates::cut() {
  if (static_cast<int64_t>(best_.size()) <= limit_) return;
  std::nth_element(best_.begin(), best_.begin() + limit_, best_.end(), better);
  best_.resize(limit_);
  float lowest = limit_ > 0 ? best_[0].score : 0.0f;
  for (const GrowCandidate& candidate : best_) lowest = std::min(lowest, candidate.score);
  floor_ = lowest > 0 ? std::nextafter(lowest, 0.0f) : 0.0f;
}

}  // namespace recsparse
