#include "cpu/spmm.h"

#include <type_traits>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/tasks.h"

namespace recsparse {

RS_CPU_VARIANTS(SpmmKernel, spmm_kernel);

template <class T, class Index>
static const SpmmVariant<T, Index>& variant() {
  const SpmmKernel& kernel = spmm_kernel();
  constexpr bool kWide = std::is_same_v<Index, int64_t>;
  if constexpr (std::is_same_v<T, Half>) {
    if constexpr (kWide)
      return kernel.f16_wide;
    else
      return kernel.f16;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    if constexpr (kWide)
      return kernel.bf16_wide;
    else
      return kernel.bf16;
  } else {
    if constexpr (kWide)
      return kernel.f32_wide;
    else
      return kernel.f32;
  }
}

template <class T, class Index>
void spmm(const SpmmArgs<T, Index>& args, int threads) {
  const GraphView<Index>& graph = args.graph;
  const SpmmVariant<T, Index>& kernel = variant<T, Index>();
  const std::vector<Segment> segments = cut_segments(graph);
  const int64_t cut = static_cast<int64_t>(segments.size());
  std::vector<float> sums(static_cast<size_t>(cut * args.dim));
  if (cut + graph.chunk_count < threads) threads = static_cast<int>(cut + graph.chunk_count);
  if (threads < 1) return;
  Tasks pieces(threads), chunks(threads);
  parallel_region(threads, [&](int rank) {
    // Segments first: they are the largest pieces.
    pieces.run(rank, cut, [&](int64_t s) { kernel.segment(args, segments[s], sums.data() + s * args.dim); });
    chunks.run(rank, graph.chunk_count, [&](int64_t c) { kernel.rows(args, graph.chunks[c], graph.chunks[c + 1]); });
  });
  for (int64_t s = 0; s < cut;) {
    int64_t end = s + 1;
    while (end < cut && segments[end].slot == segments[s].slot) ++end;
    kernel.join(args, segments[s].slot, sums.data() + s * args.dim, end - s);
    s = end;
  }
}

template void spmm<float, int32_t>(const SpmmArgs<float, int32_t>&, int);
template void spmm<float, int64_t>(const SpmmArgs<float, int64_t>&, int);
template void spmm<Half, int32_t>(const SpmmArgs<Half, int32_t>&, int);
template void spmm<Half, int64_t>(const SpmmArgs<Half, int64_t>&, int);
template void spmm<BFloat16, int32_t>(const SpmmArgs<BFloat16, int32_t>&, int);
template void spmm<BFloat16, int64_t>(const SpmmArgs<BFloat16, int64_t>&, int);

}  // namespace recsparse
