#include "cpu/convert_index.h"

#include <cstring>

#include "cpu/build_index.h"

namespace recsparse {

static RowMask mask_of_row(const TableView& table, int64_t row) {
  const RowRef<0> ref = read_row(table, row);
  RowMask mask;
  std::memcpy(mask.word, ref.mask, sizeof(mask.word));
  return mask;
}

int64_t misfit_row(const TableView& table, IndexKind kind, int threads) {
  const Layout to{kind, table.layout.dim, table.layout.rows};
  return first_misfit(to, threads, [&](int64_t row) { return mask_of_row(table, row); });
}

void convert_index(const ConvertIndexArgs& args, int threads) {
  const auto mask_of = [&](int64_t row) { return mask_of_row(args.table, row); };
  write_index(args.to, count_chunks(args.to, threads, mask_of), args.index, args.cols, threads, mask_of);
}

}  // namespace recsparse
