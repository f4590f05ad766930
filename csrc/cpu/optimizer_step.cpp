#include "cpu/optimizer_step.h"

#include <algorithm>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/prefetch.h"
#include "cpu/row_sort.h"

namespace recsparse {

RS_CPU_VARIANTS(OptimizerStepKernel, optimizer_step_kernel);

constexpr int64_t kKeyGrain = 256;
constexpr int64_t kSlotGrain = 1 << 15;  // slots of the table

void optimizer_step(const OptimizerStepArgs& args, int threads) {
  const OptimizerStepKernel& kernel = optimizer_step_kernel();
  const Layout& layout = args.table.layout;
  const int shift = bits_for(static_cast<uint64_t>(args.count));
  const uint64_t* keys = nullptr;
  if (args.form == GradientForm::rows) {
    for (int64_t i = 0; i < args.count; ++i) {
      args.workspace[i] = static_cast<uint64_t>(args.ids[i]) << shift | static_cast<uint64_t>(i);
    }
    keys = radix_sort(args.workspace, args.workspace + args.count, args.count, shift,
                      bits_for(static_cast<uint64_t>(layout.rows)));
    // Without weight decay a gradient of 0 changes nothing but Adam's moments.
    if (args.lazy || (args.options.kind != Optimizer::adam && args.options.weight_decay == 0)) {
      const int64_t weight_bytes = value_bytes(args.value_type) + 4 * state_per_weight(args.options.kind);
      const bool far = is_far(weight_bytes * args.capacity + 8 * index_words(layout));
      parallel_for(args.count, kKeyGrain, threads, [&](int64_t begin, int64_t end) {
        begin = row_boundary(keys, args.count, shift, begin);
        end = row_boundary(keys, args.count, shift, end);
        if (begin < end) kernel.lazy(args, RowKeys{keys, shift, begin, end}, far);
      });
      return;
    }
  }
  const int64_t grain = std::max<int64_t>(1, kSlotGrain / layout.dim);
  parallel_for(layout.rows, grain, threads, [&](int64_t begin, int64_t end) {
    RowKeys own{keys, shift, 0, args.count};
    if (keys) own.at = std::lower_bound(keys, keys + args.count, static_cast<uint64_t>(begin) << shift) - keys;
    kernel.full(args, own, begin, end);
  });
}

}  // namespace recsparse
