// The bounded store of growth candidates: the best `limit` of all that are offered, whoever offers them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/macros.h"

namespace recsparse {

struct GrowCandidate {
  int64_t key;  // row * dim + column
  float score;
};

// One a thread.
class GrowCandidates {
 public:
  // `dim` is the most that are offered at once.
  GrowCandidates(int64_t limit, int dim);

  // Only scores above it can still be among the best. Equal ones may win by their key.
  RS_INLINE_MEMBER float floor() const { return floor_; }

  void offer(const GrowCandidate* candidates, int count);

  void merge(const GrowCandidates& other);

  // Writes the best, by ascending key, and returns how many there are.
  int64_t take(int64_t* keys, float* scores);

 private:
  void cut();

  int64_t limit_, room_;
  float floor_ = 0.0f;
  std::vector<GrowCandidate> best_;
};

}  // namespace recsparse
