// pack, unpack on the GPU, bit for bit; see cpu/pack.h. Pointers are to device memory.
#pragma once

#include <cstdint>

#include "core/row_layout.h"

namespace recsparse::cuda {

struct PackArgs {
  Layout layout;
  int value_bytes;      // 2, 4 or 8: values are moved, never computed with
  const void* dense;    // [rows, dim]
  const uint8_t* mask;  // [rows, dim], 0 or 1
  uint64_t* index;
  uint8_t* cols;     // [capacity] for cols8
  void* values;      // [capacity], zeroed by the caller
  uint64_t* result;  // [2]: kept weights; first row that the kind cannot hold, or ~0
  void* workspace;
};

int64_t pack_workspace_bytes(const Layout& layout);

// Two halves: the host reads the result between them, because only it can raise an error.
const char* pack_count(const PackArgs& args, void* stream);
const char* pack_write(const PackArgs& args, void* stream);

struct UnpackArgs {
  TableView table;
  int value_bytes;
  const void* values;
  void* dense;    // [rows, dim]
  uint8_t* mask;  // [rows, dim]
};

const char* unpack(const UnpackArgs& args, void* stream);

}  // namespace recsparse::cuda
