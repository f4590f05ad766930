#include "core/macros.h"
#include "cpu/select.h"

namespace recsparse::portable {

static int64_t bracket(const uint32_t* bits, int64_t size, uint32_t mask, uint32_t lo, uint32_t hi,
                       BracketCounts* counts, uint32_t* inside) {
  BracketCounts sum = *counts;
  int64_t found = 0;
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t key = bits[i] & mask;
    sum.max_key = key > sum.max_key ? key : sum.max_key;
    sum.above += key > hi;
    sum.equal_lo += key == lo;
    inside[found] = key;  // no branch: overwritten unless the key is inside
    found += (key > lo) & (key <= hi);
  }
  *counts = sum;
  return found;
}

extern const SelectKernel select_kernel = {bracket};

}  // namespace recsparse::portable
