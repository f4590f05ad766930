// pack, unpack: dense rows and a mask to a packed table, and back, bit for bit.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/row_layout.h"

namespace recsparse {

template <class T>
struct PackArgs {
  Layout layout;
  const T* dense;       // [rows, dim]
  const uint8_t* mask;  // [rows, dim], 0 or 1
  uint64_t* index;      // [index_words]
  uint8_t* cols;        // [capacity] for cols8
  T* values;            // [capacity], zero behind the kept weights
  int64_t capacity;
};

// Why a mask cannot be packed; `row` is the first row at fault, `kept` the number of kept weights.
struct PackResult {
  enum Status { ok, over_capacity, not_full, not_prefix } status;
  int64_t kept;
  int64_t row;
};

// Nothing is written unless the status is ok.
template <class T>
PackResult pack(const PackArgs<T>& args, int threads);

// dense[rows, dim] gets the kept weights and 0 elsewhere, mask[rows, dim] 1 where kept.
template <class T>
void unpack(const TableView& table, const T* values, T* dense, uint8_t* mask, int threads);

}  // namespace recsparse
