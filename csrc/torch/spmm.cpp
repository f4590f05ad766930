#include "cpu/spmm.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "torch/graph_args.h"

namespace recsparse {
namespace {

using SpmmOp = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                          const at::Tensor&, const at::Tensor&);

at::Tensor spmm_cpu(const at::Tensor& offsets, const at::Tensor& neighbours, const at::Tensor& node,
                    const at::Tensor& slot, const at::Tensor& scale, const at::Tensor& chunks, const at::Tensor& x) {
  check_graph("spmm", offsets, neighbours, node, slot, scale, chunks);
  check_spmm_rows(x, node.numel());
  at::Tensor out = empty_huge(x.sizes(), x.options());
  with_value_type(x.scalar_type(), [&](auto storage) {
    using T = decltype(storage);
    const auto run = [&](auto index) {
      using Index = decltype(index);
      spmm(SpmmArgs<T, Index>{graph_view<Index>(offsets, neighbours, node, slot, scale, chunks), data_as<T>(x),
                              x.size(1), mutable_data_as<T>(out)},
           op_threads());
    };
    neighbours.scalar_type() == at::kInt ? run(int32_t{}) : run(int64_t{});
  });
  return out;
}

// The matrix equals its transpose: the gradient is the same op.
class Spmm : public torch::autograd::Function<Spmm> {
 public:
  static at::Tensor call(const at::Tensor& offsets, const at::Tensor& neighbours, const at::Tensor& node,
                         const at::Tensor& slot, const at::Tensor& scale, const at::Tensor& chunks,
                         const at::Tensor& x) {
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("recsparse::spmm", "").typed<SpmmOp>();
    return op.call(offsets, neighbours, node, slot, scale, chunks, x);
  }

  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& offsets,
                            const at::Tensor& neighbours, const at::Tensor& node, const at::Tensor& slot,
                            const at::Tensor& scale, const at::Tensor& chunks, const at::Tensor& x) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({offsets, neighbours, node, slot, scale, chunks});
    return call(offsets, neighbours, node, slot, scale, chunks, x);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor none;
    return {none,
            none,
            none,
            none,
            none,
            none,
            call(saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], grads[0].contiguous())};
  }
};

at::Tensor spmm_autograd(const at::Tensor& offsets, const at::Tensor& neighbours, const at::Tensor& node,
                         const at::Tensor& slot, const at::Tensor& scale, const at::Tensor& chunks,
                         const at::Tensor& x) {
  return Spmm::apply(offsets, neighbours, node, slot, scale, chunks, x);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def(
      "spmm(Tensor offsets, Tensor neighbours, Tensor node, Tensor slot, Tensor scale, Tensor chunks, Tensor x) -> "
      "Tensor");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) { m.impl("spmm", spmm_cpu); }

TORCH_LIBRARY_IMPL(recsparse, Autograd, m) { m.impl("spmm", spmm_autograd); }

}  // namespace recsparse
