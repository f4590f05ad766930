"""Steps of an optimiser on a packed table: Adam, Adagrad, row-wise Adagrad and SGD, lazy and full.

The four ops take the gradient of a loss with respect to the masked dense weight in one of three forms, told apart by
its shape and by `ids`:

- rows: float32 [n, dim] with `ids` int64 [n], the gradient of looked-up rows. Rows that occur more than once are summed
  in ascending position before one update.
- dense: float32 [rows, dim], of which only the kept columns are read.
- packed: float32 [capacity], in the order of `values`; what `lookup` gives to autograd.

Where `values` are stored in 16 bits a gradient may have their dtype, too. Arithmetic and state are float32, and weights
are rounded stochastically, as in `bpr_step_`.

`lazy` says what happens to rows that `ids` does not name: they and their state stay as they are (as in
`torch.optim.SparseAdam`), or, with `lazy=False`, they see a gradient of zero, as in torch's dense optimisers: moments
decay and the weights go on moving. A dense or packed gradient names every row. Nothing of the size of the table is
allocated in any form. `weight_decay` adds weight_decay * w to the gradient of the weights that are updated.

Every op adds one to `step`, an int64 tensor of one element: a compiled function is not compiled again for each step.
An id that is out of range raises IndexError before anything has changed. The same bits for any number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices

if TYPE_CHECKING:
    from recsparse.table import PackedTable

_native.load()


def adam_(
    table: PackedTable,
    moments: Tensor,
    step: Tensor,
    grad: Tensor,
    ids: Tensor | None = None,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    lazy: bool = False,
    seed: int = 0,
) -> None:
    """One step of Adam (Kingma and Ba, ICLR 2015), in place; see the module for `grad`, `ids` and `lazy`.

    `lazy=False` is `torch.optim.Adam` on the masked dense weight. `lazy=True` is `torch.optim.SparseAdam`: bias
    correction by the global step, and eps beside the uncorrected root of the second moment.

    Args:
        table: the table whose values are updated.
        moments: float32 [2 * capacity]: the first and second moment of weight i at 2i and 2i + 1.
        step: int64, one element: steps done; advances by one.
        grad: a gradient, see above.
        ids: int64 [n], the rows of `grad`.
        lr: step size.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment.
        weight_decay: L2 penalty, coupled.
        lazy: see above.
        seed: of the stochastic rounding of 16-bit weights; any 64-bit integer.

    Raises:
        IndexError: an id is out of range; nothing has changed then.
        TypeError, ValueError: wrong dtype, device, layout or shape, or an impossible hyper-parameter.
    """
    arguments = (table.values, moments, step, table.index, table.cols, grad, ids, *table.layout)
    implementation(table.backend).adam_(*arguments, lr, *betas, eps, weight_decay, lazy, seed)


def adagrad_(
    table: PackedTable,
    sums: Tensor,
    step: Tensor,
    grad: Tensor,
    ids: Tensor | None = None,
    *,
    lr: float = 1e-2,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    lazy: bool = False,
    seed: int = 0,
) -> None:
    """One step of Adagrad (Duchi et al., JMLR 2011), in place, as `torch.optim.Adagrad` on the masked dense weight.

    Args:
        table: the table whose values are updated.
        sums: float32 [capacity], sums of squared gradients in the order of `values`.
        step: int64, one element: steps done; advances by one.
        grad: a gradient, see the module.
        ids: int64 [n], the rows of `grad`.
        lr: step size.
        eps: added to the root of the sum.
        weight_decay: L2 penalty, coupled.
        lazy: see the module. Without weight decay a gradient of zero changes nothing: both modes are the same.
        seed: of the stochastic rounding of 16-bit weights; any 64-bit integer.

    Raises:
        As `adam_`.
    """
    arguments = (table.values, sums, step, table.index, table.cols, grad, ids, *table.layout)
    implementation(table.backend).adagrad_(*arguments, lr, eps, weight_decay, lazy, seed)


def rowwise_adagrad_(
    table: PackedTable,
    sums: Tensor,
    step: Tensor,
    grad: Tensor,
    ids: Tensor | None = None,
    *,
    lr: float = 1e-2,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    lazy: bool = False,
    seed: int = 0,
) -> None:
    """One step of Adagrad with one sum a row, in place: the optimiser of most embedding tables in production.

    A row's sum grows by the mean of the squares of the row's gradient over its *kept* columns, and each weight moves by
    lr * g / (sqrt(sum) + eps). FBGEMM's `EXACT_ROWWISE_ADAGRAD` takes the mean over all d columns. The two are the same
    where every column is kept. Elsewhere a mean over d would count columns that have no weight as gradients of zero: at
    10 % density sums would be 10 times smaller and steps 3.2 times longer than those of Adagrad at the same lr, and a
    row's steps would change with the number of its weights. The mean over kept columns is the mean of the row's
    Adagrad sums at any density.

    Args:
        table: the table whose values are updated.
        sums: float32 [rows].
        step: int64, one element: steps done; advances by one.
        grad: a gradient, see the module.
        ids: int64 [n], the rows of `grad`.
        lr: step size.
        eps: added to the root of the sum.
        weight_decay: L2 penalty, coupled.
        lazy: see the module. Without weight decay a gradient of zero changes nothing: both modes are the same.
        seed: of the stochastic rounding of 16-bit weights; any 64-bit integer.

    Raises:
        As `adam_`.
    """
    arguments = (table.values, sums, step, table.index, table.cols, grad, ids, *table.layout)
    implementation(table.backend).rowwise_adagrad_(*arguments, lr, eps, weight_decay, lazy, seed)


def sgd_(
    table: PackedTable,
    step: Tensor,
    grad: Tensor,
    ids: Tensor | None = None,
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    lazy: bool = False,
    seed: int = 0,
) -> None:
    """One step of stochastic gradient descent, in place: w -= lr * (g + weight_decay * w), as `torch.optim.SGD`.

    Args:
        table: the table whose values are updated.
        step: int64, one element: steps done; advances by one.
        grad: a gradient, see the module.
        ids: int64 [n], the rows of `grad`.
        lr: step size.
        weight_decay: L2 penalty.
        lazy: see the module. Without weight decay a gradient of zero changes nothing: both modes are the same.
        seed: of the stochastic rounding of 16-bit weights; any 64-bit integer.

    Raises:
        As `adam_`.
    """
    arguments = (table.values, step, table.index, table.cols, grad, ids, *table.layout)
    implementation(table.backend).sgd_(*arguments, lr, weight_decay, lazy, seed)


def _check(
    op: str,
    values: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    **state: Tensor,
) -> None:
    named = {} if ids is None else {"ids": ids}
    check_devices(op, values, step=step, index=index, cols=cols, grad=grad, **named, **state)


@torch.library.register_fake("recsparse::adam_")
def _(
    values: Tensor,
    moments: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    lazy: bool,
    seed: int,
) -> None:
    _check("adam_", values, step, index, cols, grad, ids, moments=moments)


@torch.library.register_fake("recsparse::adagrad_")
def _(
    values: Tensor,
    sums: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    lr: float,
    eps: float,
    weight_decay: float,
    lazy: bool,
    seed: int,
) -> None:
    _check("adagrad_", values, step, index, cols, grad, ids, sums=sums)


@torch.library.register_fake("recsparse::rowwise_adagrad_")
def _(
    values: Tensor,
    sums: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    lr: float,
    eps: float,
    weight_decay: float,
    lazy: bool,
    seed: int,
) -> None:
    _check("rowwise_adagrad_", values, step, index, cols, grad, ids, sums=sums)


@torch.library.register_fake("recsparse::sgd_")
def _(
    values: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    lr: float,
    weight_decay: float,
    lazy: bool,
    seed: int,
) -> None:
    _check("sgd_", values, step, index, cols, grad, ids)
