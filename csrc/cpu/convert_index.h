// convert_index: the index of another kind for the same kept slots. Values and optimiser state stay where they are, because
// every kind holds them in row-major order.
#pragma once

#include <cstdint>

#include "core/row_layout.h"

namespace recsparse {

struct ConvertIndexArgs {
  TableView table;
  Layout to;        // the same rows and dim
  uint64_t* index;  // [index_words(to)]
  uint8_t* cols;    // [capacity] when `to` is cols8, zero behind the kept columns
};

// The first row of the table that `kind` cannot hold, or -1.
int64_t misfit_row(const TableView& table, IndexKind kind, int threads);

// Every row must fit.
void convert_index(const ConvertIndexArgs& args, int threads);

}  // namespace recsparse
