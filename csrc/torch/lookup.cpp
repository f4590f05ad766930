#include "cpu/lookup.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "cpu/bpr_step.h"
#include "torch/bounds.h"
#include "torch/check.h"
#include "torch/sort_keys.h"

namespace recsparse {
namespace {

template <class T>
void lookup_typed(const TableView& table, const at::Tensor& values, const at::Tensor& ids, int64_t bounds,
                  at::Tensor& out) {
  TORCH_CHECK_INDEX(table.layout.rows > 0 || ids.numel() == 0, "lookup: ids given for a table without rows");
  const LookupArgs<T> args{table,       data_as<T>(values),     values.numel(), ids.const_data_ptr<int64_t>(),
                           ids.numel(), mutable_data_as<T>(out)};
  const BadIds bad = lookup(args, op_threads());
  report_bad_ids("lookup", ids, table.layout.rows, bad.count, bad.first, bounds);
}

at::Tensor& lookup_out_cpu(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                           const at::Tensor& ids, int64_t kind, int64_t rows, int64_t dim, int64_t bounds,
                           int64_t padding, at::Tensor& out) {
  const at::ScalarType dtype = check_floating("lookup", "values", values);
  check_vector(values, "lookup", "values", dtype);
  const TableView table = check_index("lookup", index, cols, values.numel(), kind, rows, dim);
  check_vector(ids, "lookup", "ids", at::kLong);
  check_bounds_mode("lookup", bounds);
  check_padding("lookup", padding, rows);
  check_tensor(out, "lookup", "out", dtype);
  TORCH_CHECK_VALUE(out.dim() == 2 && out.size(0) == ids.numel() && out.size(1) == dim, "lookup: out has shape ",
                    out.sizes(), ", expected [", ids.numel(), ", ", dim, "]");
  with_floating(dtype, [&](auto storage) { lookup_typed<decltype(storage)>(table, values, ids, bounds, out); });
  return out;
}

at::Tensor lookup_cpu(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values, const at::Tensor& ids,
                      int64_t kind, int64_t rows, int64_t dim, int64_t bounds, int64_t padding) {
  at::Tensor out = empty_huge({ids.numel(), dim}, values.options());
  lookup_out_cpu(index, cols, values, ids, kind, rows, dim, bounds, padding, out);
  return out;
}

template <class T>
at::Tensor lookup_backward_typed(const TableView& table, const at::Tensor& grad, const at::Tensor& ids, int64_t padding,
                                 int64_t capacity) {
  at::Tensor out = at::zeros({capacity}, grad.options());
  at::Tensor workspace = at::empty({2 * ids.numel()}, ids.options());
  const LookupBackwardArgs<T> args{
      table,       data_as<T>(grad),        ids.const_data_ptr<int64_t>(),
      ids.numel(), mutable_data_as<T>(out), reinterpret_cast<uint64_t*>(workspace.mutable_data_ptr<int64_t>()),
      padding};
  lookup_backward(args, op_threads());
  return out;
}

at::Tensor lookup_backward_cpu(const at::Tensor& grad, const at::Tensor& index, const at::Tensor& cols,
                               const at::Tensor& ids, int64_t kind, int64_t rows, int64_t dim, int64_t padding,
                               int64_t capacity) {
  const at::ScalarType dtype = check_floating("lookup_backward", "grad", grad);
  const TableView table = check_index("lookup_backward", index, cols, capacity, kind, rows, dim);
  check_vector(ids, "lookup_backward", "ids", at::kLong);
  const at::Tensor rows_of_grad = grad.contiguous();
  TORCH_CHECK_VALUE(grad.dim() == 2 && grad.size(0) == ids.numel() && grad.size(1) == dim,
                    "lookup_backward: grad has shape ", grad.sizes(), ", expected [", ids.numel(), ", ", dim, "]");
  check_sort_keys("lookup_backward", rows, ids.numel());
  check_padding("lookup_backward", padding, rows);
  at::Tensor checked = ids;
  if (find_bad_id(ids.const_data_ptr<int64_t>(), ids.numel(), rows, op_threads()) >= 0) {
    checked = ids.clone();  // the forward, told to go on, has read row 0 for these
    int64_t* id = checked.mutable_data_ptr<int64_t>();
    for (int64_t i = 0; i < checked.numel(); ++i) id[i] = id[i] < 0 || id[i] >= rows ? 0 : id[i];
  }
  return with_floating(dtype, [&](auto storage) {
    return lookup_backward_typed<decltype(storage)>(table, rows_of_grad, checked, padding, capacity);
  });
}

class Lookup : public torch::autograd::Function<Lookup> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& index, const at::Tensor& cols,
                            const at::Tensor& values, const at::Tensor& ids, int64_t kind, int64_t rows, int64_t dim,
                            int64_t bounds, int64_t padding) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({index, cols, ids});
    context->saved_data["layout"] = std::vector<int64_t>{kind, rows, dim, padding};
    context->saved_data["capacity"] = values.sym_numel();
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("recsparse::lookup", "")
                               .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                 const at::Tensor&, int64_t, int64_t, int64_t, int64_t, int64_t)>();
    return op.call(index, cols, values, ids, kind, rows, dim, bounds, padding);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const auto layout = context->saved_data["layout"].toIntVector();
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("recsparse::lookup_backward", "")
                               .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                 const at::Tensor&, int64_t, int64_t, int64_t, int64_t, c10::SymInt)>();
    const at::Tensor grad_values = op.call(grads[0], saved[0], saved[1], saved[2], layout[0], layout[1], layout[2],
                                           layout[3], context->saved_data["capacity"].toSymInt());
    const at::Tensor none;
    return {none, none, grad_values, none, none, none, none, none, none};
  }
};

at::Tensor lookup_autograd(const at::Tensor& index, const at::Tensor& cols, const at::Tensor& values,
                           const at::Tensor& ids, int64_t kind, int64_t rows, int64_t dim, int64_t bounds,
                           int64_t padding) {
  return Lookup::apply(index, cols, values, ids, kind, rows, dim, bounds, padding);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "lookup(Tensor index, Tensor cols, Tensor values, Tensor ids, int kind, int rows, int dim, int bounds=0, int "
      "padding=-1) -> "
      "Tensor");
  m.def(
      "lookup.out(Tensor index, Tensor cols, Tensor values, Tensor ids, int kind, int rows, int dim, int bounds=0, int "
      "padding=-1, *, "
      "Tensor(a!) out) -> Tensor(a!)");
  m.def(
      "lookup_backward(Tensor grad, Tensor index, Tensor cols, Tensor ids, int kind, int rows, int dim, int padding, "
      "SymInt "
      "capacity) -> Tensor");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("lookup", lookup_cpu);
  m.impl("lookup.out", lookup_out_cpu);
  m.impl("lookup_backward", lookup_backward_cpu);
}

TORCH_LIBRARY_IMPL(recsparse, Autograd, m) { m.impl("lookup", lookup_autograd); }

}  // namespace recsparse
