#include "cpu/pack.h"

#include <cstring>

#include "cpu/build_index.h"

namespace recsparse {

static RowMask mask_from_bytes(const uint8_t* bytes, int dim) {
  RowMask mask = {};
  for (int col = 0; col < dim; ++col) mask.word[col >> 6] |= static_cast<uint64_t>(bytes[col] != 0) << (col & 63);
  return mask;
}

template <class T>
PackResult pack(const PackArgs<T>& args, int threads) {
  const Layout layout = args.layout;
  const int dim = layout.dim;
  const auto mask_of = [&](int64_t row) { return mask_from_bytes(args.mask + row * dim, dim); };
  const int64_t misfit = first_misfit(layout, threads, mask_of);
  const std::vector<uint64_t> starts = count_chunks(layout, threads, mask_of);
  const int64_t kept = static_cast<int64_t>(starts.back());
  if (misfit >= 0) {
    return PackResult{layout.kind == IndexKind::full ? PackResult::not_full : PackResult::not_prefix, kept, misfit};
  }
  if (kept > args.capacity) return PackResult{PackResult::over_capacity, kept, 0};

  write_index(layout, starts, args.index, args.cols, threads, mask_of);
  const TableView table{layout, args.index, args.cols};
  parallel_for(layout.rows, 4096, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const RowRef<0> ref = read_row(table, row);
      T* out = args.values + ref.start;
      const T* in = args.dense + row * dim;
      for (int i = 0; i < RowRef<0>::kMaskWords64; ++i) {
        for (uint64_t word = ref.mask[i]; word; word &= word - 1) *out++ = in[64 * i + __builtin_ctzll(word)];
      }
    }
  });
  std::memset(args.values + kept, 0, sizeof(T) * static_cast<size_t>(args.capacity - kept));
  return PackResult{PackResult::ok, kept, 0};
}

template <class T>
void unpack(const TableView& table, const T* values, T* dense, uint8_t* mask, int threads) {
  const int dim = table.layout.dim;
  parallel_for(table.layout.rows, 4096, threads, [&](int64_t begin, int64_t end) {
    std::memset(dense + begin * dim, 0, sizeof(T) * static_cast<size_t>((end - begin) * dim));
    std::memset(mask + begin * dim, 0, static_cast<size_t>((end - begin) * dim));
    for (int64_t row = begin; row < end; ++row) {
      const RowRef<0> ref = read_row(table, row);
      const T* in = values + ref.start;
      for (int i = 0; i < RowRef<0>::kMaskWords64; ++i) {
        for (uint64_t word = ref.mask[i]; word; word &= word - 1) {
          const int64_t slot = row * dim + 64 * i + __builtin_ctzll(word);
          dense[slot] = *in++;
          mask[slot] = 1;
        }
      }
    }
  });
}

template PackResult pack<float>(const PackArgs<float>&, int);
template PackResult pack<Half>(const PackArgs<Half>&, int);
template PackResult pack<BFloat16>(const PackArgs<BFloat16>&, int);
template PackResult pack<double>(const PackArgs<double>&, int);
template void unpack<float>(const TableView&, const float*, float*, uint8_t*, int);
template void unpack<Half>(const TableView&, const Half*, Half*, uint8_t*, int);
template void unpack<BFloat16>(const TableView&, const BFloat16*, BFloat16*, uint8_t*, int);
template void unpack<double>(const TableView&, const double*, double*, uint8_t*, int);

}  // namespace recsparse
