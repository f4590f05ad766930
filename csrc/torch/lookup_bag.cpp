#include "cpu/lookup_bag.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>

#include "cpu/bpr_step.h"
#include "torch/bounds.h"
#include "torch/lookup_bag_args.h"
#include "torch/sort_keys.h"

namespace recsparse {
namespace {

// Offsets that end with the number of ids, whichever way they were given.
at::Tensor check_offsets(const char* op, const at::Tensor& offsets, int64_t count, bool include_last_offset) {
  check_vector(offsets, op, "offsets", at::kLong);
  const int64_t bags = count_bags(op, offsets, include_last_offset);
  TORCH_CHECK_VALUE(bags > 0 || count == 0, op, ": ", count, " ids, but no bag");
  const int64_t* given = offsets.const_data_ptr<int64_t>();
  TORCH_CHECK_VALUE(offsets.numel() == 0 || given[0] == 0, op, ": offsets[0] is ", given[0], ", expected 0");
  for (int64_t i = 1; i < offsets.numel(); ++i) {
    TORCH_CHECK_VALUE(given[i] >= given[i - 1], op, ": offsets[", i, "] = ", given[i], " follows ", given[i - 1],
                      ", expected ascending offsets");
  }
  const int64_t last = offsets.numel() == 0 ? 0 : given[offsets.numel() - 1];
  if (include_last_offset) {
    TORCH_CHECK_VALUE(last == count, op, ": the last offset is ", last, ", expected the number of ids, ", count);
    return offsets;
  }
  TORCH_CHECK_VALUE(last <= count, op, ": offsets[", bags - 1, "] = ", last, " is beyond the ", count, " ids");
  at::Tensor closed = at::empty({bags + 1}, offsets.options());
  std::copy(given, given + bags, closed.mutable_data_ptr<int64_t>());
  closed.mutable_data_ptr<int64_t>()[bags] = count;
  return closed;
}

template <class T>
BagIds<T> bag_ids(const TableView& table, const at::Tensor& ids, const at::Tensor& closed,
                  const std::optional<at::Tensor>& weights, int64_t mode, int64_t padding) {
  return BagIds<T>{table,
                   ids.const_data_ptr<int64_t>(),
                   ids.numel(),
                   closed.const_data_ptr<int64_t>(),
                   closed.numel() - 1,
                   weights ? data_as<T>(*weights) : nullptr,
                   mode == BagMode::mean,
                   padding};
}

void check_ids(const at::Tensor& ids, int64_t rows, int64_t bounds) {
  TORCH_CHECK_INDEX(rows > 0 || ids.numel() == 0, "lookup_bag: ids given for a table without rows");
  const int64_t* id = ids.const_data_ptr<int64_t>();
  const int64_t first = find_bad_id(id, ids.numel(), rows, op_threads());
  if (first < 0) return;
  int64_t count = 0;
  for (int64_t i = first; i < ids.numel(); ++i) count += id[i] < 0 || id[i] >= rows;
  report_bad_ids("lookup_bag", ids, rows, count, first, bounds);
}

at::Tensor lookup_bag_cpu(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                          const at::Tensor& ids, const at::Tensor& offsets, const std::optional<at::Tensor>& weights,
                          int64_t kind, int64_t rows, int64_t dim, int64_t mode, bool include_last_offset,
                          int64_t padding, int64_t bounds) {
  const char* op = "lookup_bag";
  const at::ScalarType dtype = check_floating(op, "values", values);
  check_vector(values, op, "values", dtype);
  const TableView table = check_index(op, index, cols, values.numel(), kind, rows, dim);
  check_bag_arguments(op, ids, weights, dtype, mode, padding, rows);
  check_bounds_mode(op, bounds);
  const at::Tensor closed = check_offsets(op, offsets, ids.numel(), include_last_offset);
  check_ids(ids, rows, bounds);
  at::Tensor out = empty_huge({closed.numel() - 1, dim}, values.options());
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const LookupBagArgs<T> args{bag_ids<T>(table, ids, closed, weights, mode, padding), data_as<T>(values),
                                values.numel(), mutable_data_as<T>(out)};
    lookup_bag(args, op_threads());
  };
  with_floating(dtype, run);
  return out;
}

at::Tensor lookup_bag_backward_cpu(const at::Tensor& grad, const at::Tensor& index, const at::Tensor& cols,
                                   const at::Tensor& ids, const at::Tensor& offsets,
                                   const std::optional<at::Tensor>& weights, int64_t kind, int64_t rows, int64_t dim,
                                   int64_t mode, bool include_last_offset, int64_t padding, int64_t capacity) {
  const char* op = "lookup_bag_backward";
  const at::ScalarType dtype = check_floating(op, "grad", grad);
  const TableView table = check_index(op, index, cols, capacity, kind, rows, dim);
  check_bag_arguments(op, ids, weights, dtype, mode, padding, rows);
  const at::Tensor closed = check_offsets(op, offsets, ids.numel(), include_last_offset);
  check_bag_grad(op, grad, closed.numel() - 1, dim);
  check_sort_keys(op, rows, ids.numel());
  const at::Tensor bag_grads = grad.contiguous();
  at::Tensor out = at::zeros({capacity}, grad.options());
  at::Tensor workspace = at::empty({3 * ids.numel()}, ids.options());
  const at::ScalarType arithmetic = dtype == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor scales = at::empty({weights || mode == BagMode::mean ? ids.numel() : 0}, grad.options().dtype(arithmetic));
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const LookupBagBackwardArgs<T> args{bag_ids<T>(table, ids, closed, weights, mode, padding), data_as<T>(bag_grads),
                                        mutable_data_as<T>(out), workspace.mutable_data_ptr<int64_t>(),
                                        scales.numel() ? mutable_data_as<ArithmeticType<T>>(scales) : nullptr};
    lookup_bag_backward(args, op_threads());
  };
  with_floating(dtype, run);
  return out;
}

at::Tensor lookup_bag_weights_backward_cpu(const at::Tensor& grad, const at::Tensor& index, const at::Tensor& cols,
                                           const at::Tensor& values, const at::Tensor& ids, const at::Tensor& offsets,
                                           int64_t kind, int64_t rows, int64_t dim, bool include_last_offset,
                                           int64_t padding) {
  const char* op = "lookup_bag_weights_backward";
  const at::ScalarType dtype = check_floating(op, "grad", grad);
  check_vector(values, op, "values", dtype);
  const TableView table = check_index(op, index, cols, values.numel(), kind, rows, dim);
  check_bag_arguments(op, ids, std::nullopt, dtype, BagMode::sum, padding, rows);
  const at::Tensor closed = check_offsets(op, offsets, ids.numel(), include_last_offset);
  check_bag_grad(op, grad, closed.numel() - 1, dim);
  const at::Tensor bag_grads = grad.contiguous();
  at::Tensor out = at::zeros({ids.numel()}, grad.options());
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const LookupBagWeightsBackwardArgs<T> args{bag_ids<T>(table, ids, closed, std::nullopt, BagMode::sum, padding),
                                               data_as<T>(values), values.numel(), data_as<T>(bag_grads),
                                               mutable_data_as<T>(out)};
    lookup_bag_weights_backward(args, op_threads());
  };
  with_floating(dtype, run);
  return out;
}

class LookupBag : public torch::autograd::Function<LookupBag> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& index, const at::Tensor& cols,
                            const at::Tensor& values, const at::Tensor& ids, const at::Tensor& offsets,
                            const std::optional<at::Tensor>& weights, int64_t kind, int64_t rows, int64_t dim,
                            int64_t mode, bool include_last_offset, int64_t padding, int64_t bounds) {
    at::AutoDispatchBelowADInplaceOrView guard;
    // The values are needed for the gradient of the weights alone: elsewhere they may change before the backward.
    const bool weighted = weights && weights->requires_grad();
    context->save_for_backward(
        {index, cols, weighted ? values : at::Tensor(), ids, offsets, weights.value_or(at::Tensor())});
    context->saved_data["layout"] = std::vector<int64_t>{kind, rows, dim, mode, include_last_offset, padding};
    context->saved_data["capacity"] = values.sym_numel();
    context->saved_data["values"] = values.requires_grad();
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("recsparse::lookup_bag", "")
                               .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                 const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                                                 int64_t, int64_t, int64_t, int64_t, bool, int64_t, int64_t)>();
    return op.call(index, cols, values, ids, offsets, weights, kind, rows, dim, mode, include_last_offset, padding,
                   bounds);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &index = saved[0], &cols = saved[1], &values = saved[2], &ids = saved[3], &offsets = saved[4];
    const std::optional<at::Tensor> weights = saved[5].defined() ? std::optional(saved[5]) : std::nullopt;
    const auto layout = context->saved_data["layout"].toIntVector();
    torch::autograd::variable_list out(13);
    if (context->saved_data["values"].toBool()) {
      static const auto op =
          c10::Dispatcher::singleton()
              .findSchemaOrThrow("recsparse::lookup_bag_backward", "")
              .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                const at::Tensor&, const std::optional<at::Tensor>&, int64_t, int64_t, int64_t, int64_t,
                                bool, int64_t, c10::SymInt)>();
      out[2] = op.call(grads[0], index, cols, ids, offsets, weights, layout[0], layout[1], layout[2], layout[3],
                       layout[4] != 0, layout[5], context->saved_data["capacity"].toSymInt());
    }
    if (values.defined()) {
      static const auto op =
          c10::Dispatcher::singleton()
              .findSchemaOrThrow("recsparse::lookup_bag_weights_backward", "")
              .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                const at::Tensor&, const at::Tensor&, int64_t, int64_t, int64_t, bool, int64_t)>();
      out[5] = op.call(grads[0], index, cols, values, ids, offsets, layout[0], layout[1], layout[2], layout[4] != 0,
                       layout[5]);
    }
    return out;
  }
};

at::Tensor lookup_bag_autograd(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                               const at::Tensor& ids, const at::Tensor& offsets,
                               const std::optional<at::Tensor>& weights, int64_t kind, int64_t rows, int64_t dim,
                               int64_t mode, bool include_last_offset, int64_t padding, int64_t bounds) {
  return LookupBag::apply(index, cols, values, ids, offsets, weights, kind, rows, dim, mode, include_last_offset,
                          padding, bounds);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "lookup_bag(Tensor index, Tensor cols, Tensor values, Tensor ids, Tensor offsets, Tensor? per_sample_weights, "
      "int "
      "kind, int rows, int dim, int mode=0, bool include_last_offset=False, int padding=-1, int bounds=0) -> Tensor");
  m.def(
      "lookup_bag_backward(Tensor grad, Tensor index, Tensor cols, Tensor ids, Tensor offsets, Tensor? "
      "per_sample_weights, int kind, int rows, int dim, int mode, bool include_last_offset, int padding, SymInt "
      "capacity) -> Tensor");
  m.def(
      "lookup_bag_weights_backward(Tensor grad, Tensor index, Tensor cols, Tensor values, Tensor ids, Tensor offsets, "
      "int kind, int rows, int dim, bool include_last_offset, int padding) -> Tensor");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("lookup_bag", lookup_bag_cpu);
  m.impl("lookup_bag_backward", lookup_bag_backward_cpu);
  m.impl("lookup_bag_weights_backward", lookup_bag_weights_backward_cpu);
}

TORCH_LIBRARY_IMPL(recsparse, Autograd, m) { m.impl("lookup_bag", lookup_bag_autograd); }

}  // namespace recsparse
