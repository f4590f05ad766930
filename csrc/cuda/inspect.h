// row_counts, column_mask, check_index on the GPU; see cpu/inspect.h. Pointers are to device memory.
#pragma once

#include <cstdint>

#include "core/row_layout.h"

namespace recsparse::cuda {

const char* row_counts(const TableView& table, int64_t* counts, void* stream);
const char* column_mask(const TableView& table, int column, uint8_t* kept, void* stream);

// The first place of each kind of fault, ~0 where there is none, and the number of kept weights.
struct IndexFaults {
  uint64_t length;  // row that keeps columns beyond dim
  uint64_t start;   // block that does not start where the one before it ends
  uint64_t column;  // row whose columns do not ascend within dim
  uint64_t kept;
};

// Reads nothing that the index has not shown to be in bounds, so any bytes may be given.
const char* check_index(const TableView& table, int64_t capacity, IndexFaults* faults, void* stream);

}  // namespace recsparse::cuda
