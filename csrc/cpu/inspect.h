// row_counts, column_mask, check_index: what a table holds, and whether its format is intact. Used on every load and,
// where asked for, after every step.
#pragma once

#include <cstdint>
#include <string>

#include "core/row_layout.h"

namespace recsparse {

// Kept weights of each row.
void row_counts(const TableView& table, int64_t* counts, int threads);

// 1 for each row that keeps `column`.
void column_mask(const TableView& table, int column, uint8_t* kept, int threads);

// Empty, or what is wrong: block starts, row lengths, columns (in range, ascending), room. Reads nothing that the index
// has not shown to be in bounds, so any bytes may be given.
std::string check_index(const TableView& table, int64_t capacity, int threads);

}  // namespace recsparse
