// convert_index on the GPU; see cpu/convert_index.h. Pointers are to device memory.
#pragma once

#include <cstdint>

#include "core/row_layout.h"

namespace recsparse::cuda {

struct ConvertIndexArgs {
  TableView table;
  Layout to;         // the same rows and dim
  uint64_t* index;   // [index_words(to)]
  uint8_t* cols;     // [capacity] when `to` is cols8, zeroed by the caller
  uint64_t* result;  // [2]: kept weights; first row that `to` cannot hold, or ~0
  void* workspace;
};

int64_t convert_index_workspace_bytes(const Layout& to);

// Two halves: the host reads the result between them, because only it can raise an error.
const char* convert_index_count(const ConvertIndexArgs& args, void* stream);
const char* convert_index_write(const ConvertIndexArgs& args, void* stream);

}  // namespace recsparse::cuda
