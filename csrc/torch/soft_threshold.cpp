#include "cpu/soft_threshold.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "cpu/bpr_step.h"
#include "torch/soft_threshold_args.h"

namespace recsparse {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

SoftThresholdArgs checked(const char* op, const at::Tensor& values, const at::Tensor& thresholds,
                          const OptionalTensor& ids) {
  const SoftThresholdArgs args = check_soft_threshold(op, values, thresholds, ids);
  if (!ids) return args;
  const int64_t bad = find_bad_id(args.ids, args.count, args.rows, op_threads());
  TORCH_CHECK_INDEX(bad < 0, op, ": ids[", bad, "] = ", args.ids[bad < 0 ? 0 : bad], " is out of range, expected 0..",
                    args.rows - 1);
  return args;
}

at::Tensor soft_threshold_cpu(const at::Tensor& values, const at::Tensor& thresholds, const OptionalTensor& ids) {
  SoftThresholdArgs args = checked("soft_threshold", values, thresholds, ids);
  at::Tensor out = empty_huge({args.count, args.dim}, values.options());
  args.out = out.mutable_data_ptr<float>();
  soft_threshold(args, op_threads());
  return out;
}

std::tuple<at::Tensor, at::Tensor> soft_threshold_backward_cpu(const at::Tensor& grad, const at::Tensor& values,
                                                               const at::Tensor& thresholds,
                                                               const OptionalTensor& ids) {
  const SoftThresholdArgs forward = checked("soft_threshold_backward", values, thresholds, ids);
  const at::Tensor whole = grad.contiguous();
  check_threshold_grad(whole, forward);
  at::Tensor of_values = empty_huge({forward.count, forward.dim}, values.options());
  at::Tensor of_thresholds = at::empty(threshold_grad_shape(forward), values.options());
  const int64_t partial = forward.thresholds.by_row ? 0 : soft_threshold_chunks(forward.count);
  at::Tensor workspace = at::empty({partial, forward.dim}, values.options());
  soft_threshold_backward(
      SoftThresholdBackwardArgs{forward, whole.const_data_ptr<float>(), of_values.mutable_data_ptr<float>(),
                                of_thresholds.mutable_data_ptr<float>(), workspace.mutable_data_ptr<float>()},
      op_threads());
  return {of_values, of_thresholds};
}

template <class Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// The gradient of a whole dense array from those of some of its rows, in the same order in every run.
at::Tensor sum_rows(const at::Tensor& grad, const at::Tensor& ids, int64_t rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t,
                         int64_t, int64_t, c10::SymInt)>("recsparse::lookup_backward");
  const at::Tensor index = at::empty({0}, ids.options()), cols = at::empty({0}, ids.options().dtype(at::kByte));
  const int64_t dim = grad.size(1);
  return op.call(grad, index, cols, ids, static_cast<int64_t>(IndexKind::full), rows, dim, -1, rows * dim)
      .view({rows, dim});
}

class SoftThreshold : public torch::autograd::Function<SoftThreshold> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& values,
                            const at::Tensor& thresholds, const OptionalTensor& ids) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({values, thresholds, ids.value_or(at::Tensor())});
    static const auto op =
        find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&)>("recsparse::soft_threshold");
    return op.call(values, thresholds, ids);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &values = saved[0], &thresholds = saved[1], &ids = saved[2];
    static const auto op =
        find_op<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                   const OptionalTensor&)>("recsparse::soft_threshold_backward");
    const OptionalTensor some = ids.defined() ? OptionalTensor(ids) : std::nullopt;
    auto [of_values, of_thresholds] = op.call(grads[0].contiguous(), values, thresholds, some);
    if (some) {
      of_values = sum_rows(of_values, ids, values.size(0));
      if (thresholds.size(0) != 1) of_thresholds = sum_rows(of_thresholds, ids, values.size(0));
    }
    return {of_values, of_thresholds, at::Tensor()};
  }
};

at::Tensor soft_threshold_autograd(const at::Tensor& values, const at::Tensor& thresholds, const OptionalTensor& ids) {
  return SoftThreshold::apply(values, thresholds, ids);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def("soft_threshold(Tensor values, Tensor thresholds, Tensor? ids=None) -> Tensor");
  m.def("soft_threshold_backward(Tensor grad, Tensor values, Tensor thresholds, Tensor? ids=None) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("soft_threshold", soft_threshold_cpu);
  m.impl("soft_threshold_backward", soft_threshold_backward_cpu);
}

TORCH_LIBRARY_IMPL(recsparse, Autograd, m) { m.impl("soft_threshold", soft_threshold_autograd); }

}  // namespace recsparse
