// What prune_regrow_ did, or why it did nothing.
#pragma once

#include <cstdint>

namespace recsparse {

enum class PruneRegrowStatus {
  ok,
  bad_nnz,         // the index counts more values than there is capacity for; value = nnz
  bad_drop,        // value = nnz
  key_range,       // position of the first key outside the table
  key_order,       // position of the first key that is not above its predecessor
  key_kept,        // position of the first key whose slot is kept
  score_infinite,  // position of the first score that is not finite
  no_capacity,     // value = nnz that would result
  weight_nan,      // position of the first, value = how many
};

struct PruneRegrowResult {
  PruneRegrowStatus status = PruneRegrowStatus::ok;
  int64_t position = -1;
  int64_t value = 0;
  int64_t dropped = 0, grown = 0;
};

}  // namespace recsparse
