#include "cpu/select.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

#include "core/float_order.h"
#include "torch/check.h"

namespace recsparse {

static std::tuple<at::Tensor, at::Tensor> select_cpu(const at::Tensor& values, int64_t k) {
  check_values("select", values);
  const int64_t n = values.numel();
  TORCH_CHECK_VALUE(0 <= k && k <= n, "select: k = ", k, ", expected 0 <= k <= ", n, " (the number of values)");
  const MagnitudeSelection found = select_magnitude(value_type(values), values.const_data_ptr(), n, k, op_threads());
  TORCH_CHECK_VALUE(found.nan.count == 0, "select: ", found.nan.count, " of ", n,
                    " values are NaN, the first at position ", found.nan.first, "; expected numbers");
  at::Tensor threshold = at::empty({}, values.options());
  at::Tensor ties = at::empty({}, values.options().dtype(at::kLong));
  if (values.scalar_type() == at::kFloat) {
    *threshold.mutable_data_ptr<float>() = bits_float(found.threshold);
  } else {
    *mutable_data_as<uint16_t>(threshold) = static_cast<uint16_t>(found.threshold);
  }
  *ties.mutable_data_ptr<int64_t>() = found.ties;
  return {threshold, ties};
}

TORCH_LIBRARY_FRAGMENT(recsparse, m) { m.def("select(Tensor values, int k) -> (Tensor threshold, Tensor ties)"); }
TORCH_LIBRARY_IMPL(recsparse, CPU, m) { m.impl("select", select_cpu); }

}  // namespace recsparse
