// init_index, init_values: a table from a recipe, without any dense array. Pure functions of (seed, row, column).
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/row_layout.h"

namespace recsparse {

enum class InitStart : int32_t {
  full = 0,       // every slot
  prefix = 1,     // row r keeps its first floor(kept (r + 1) / rows) - floor(kept r / rows) columns
  bernoulli = 2,  // the slots whose 32-bit random rank is below a threshold: as many as possible, at most `kept`
};

// Writes the index (and cols) of a table with at most `kept` weights; returns how many it really has.
int64_t init_index(const Layout& layout, InitStart start, int64_t kept, uint64_t seed, uint64_t* index, uint8_t* cols,
                   int threads);

// Kept weights about N(0, std^2), see core/init.h; T is float, or Half or BFloat16, which get the nearest to it.
template <class T>
void init_values(const TableView& table, uint64_t seed, double std, T* values, int threads);

}  // namespace recsparse
