// The generated stream as a finite data set.
#pragma once

#include <cstdint>

#include "core/synthetic.h"
#include "host/interactions.h"

namespace recsparse::host {

// Every user's interactions without repeats, plus one user for each item that nobody drew, plus the next interactions of
// the stream, one a user in turn, until there are exactly `pairs`. Throws DataError where that cannot be.
Csr materialise(const SyntheticSpec& spec, int64_t pairs);

}  // namespace recsparse::host
