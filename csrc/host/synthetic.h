// The generated stream as a finite data set.
#pragma once

#include <cstdint>

#include "core/synthetic.h"
#include "host/interactions.h"

namespace recsparse::host {

// Every user's interactions without repeats, plus one user for each item that nobody drew, plus the next interactions of
// the stream, one a user in turn, until there are exactly `pairs`. Throws DataError where that cannot be.
Csr materialise(const SyntheticSpec& spec, int64_t pairs);

// The interactions of some users without repeats, a row for each of `users`: their own where `count` is 0, else the
// `count` that would follow their own after the next `skip`, which no draw of the stream returns as a positive.
Csr streamed_rows(const SyntheticSpec& spec, const int64_t* users, int64_t n, int32_t skip, int32_t count);

}  // namespace recsparse::host
