"""adam_, adagrad_, rowwise_adagrad_ and sgd_ in Triton: one step of an optimiser over packed weights.

Three kernels for three ways through a table:

*Rows* (lazy, row gradients): a tile of distinct rows sums the gradients of its occurrences (`segments.py`) and updates
the kept columns. Bytes a row: its gradients, an index line, values and state read and written.

*Table* (a dense gradient; row gradients of a full step; 16-bit values and the row-wise optimiser): a tile of
consecutive rows. Only kept columns of a dense gradient are read.

*Stream* (float32 values, a gradient in packed order): a plain pass over values, state and gradient; row boundaries do
not matter, and Adam's moments, which lie in pairs, are read and written as whole lines and split in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.rows import decode, expand, span
from recsparse.triton_kernels.search import lower_bound
from recsparse.triton_kernels.segments import LONG, long_segment, long_work, make_segments, short_segments, sum_rows
from recsparse.triton_kernels.tile import index_words, launch, rows_of, table_shape
from recsparse.triton_kernels.update import ADAGRAD, ADAM, coefficients, moved, update_rows

ROWS = tl.constexpr(0)
DENSE = tl.constexpr(1)
PACKED = tl.constexpr(2)
SLOTS = 1024  # gradients, weights and two moments a slot: half of what a lookup has
STREAM_BLOCK = 1024


@triton.jit(do_not_specialize=["count", "seed"])
def _rows_kernel(
    values, state, step, index, cols, grad, keys, order, number, begin, steps, count, seed, decay, rate1, rate2,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, OPTIMIZER: tl.constexpr,
    BLOCK: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    if ACROSS > 1:
        row, head, length = long_segment(keys, number, begin, 0, count)
    else:
        row, head, length = short_segments(keys, begin, 0, count, BLOCK)
    live = length > 0
    width = tl.full([BLOCK], DIM, tl.int32)
    gradient = sum_rows(grad, order, 0, head, length, 0, width, BLOCK, ACROSS, DIM, 32 * WORDS)
    start, words = decode(index, cols, row, live, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    update_rows(
        values, state, row, live, start[:, None] + rank, kept, rank, gradient,
        step, 1, seed, tl.load(steps), tl.load(steps + 1), decay, rate1, rate2, OPTIMIZER,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rows", "count", "seed"])
def _table_kernel(
    values, state, step, index, cols, grad, keys, order, number, begin, steps, rows, count, seed, decay, rate1, rate2,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, OPTIMIZER: tl.constexpr,
    BLOCK: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = row < rows
    start, words = decode(index, cols, row, live, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    place = start[:, None] + rank
    if FORM == ROWS:
        head = lower_bound(keys, count, row)
        found = live & (tl.load(keys + head, mask=head < count, other=-1) == row)
        segment = tl.load(number + head, mask=found, other=0)
        length = tl.load(begin + segment + 1, mask=found, other=0) - head
        width = tl.full([BLOCK], DIM, tl.int32)
        length = tl.where(found, length, 0)
        gradient = sum_rows(grad, order, 0, head, length, 0, width, BLOCK, 1, DIM, 32 * WORDS)
    elif FORM == DENSE:
        column = tl.arange(0, 32 * WORDS)[None, :]
        gradient = tl.load(grad + row[:, None] * DIM + column, mask=kept, other=0).to(tl.float32)
    else:
        gradient = tl.load(grad + place, mask=kept, other=0).to(tl.float32)
    update_rows(
        values, state, row, live, place, kept, rank, gradient,
        step, 1, seed, tl.load(steps), tl.load(steps + 1), decay, rate1, rate2, OPTIMIZER,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rows"])
def _stream_kernel(
    values, state, index, grad, steps, rows, decay, rate1, rate2,
    KIND: tl.constexpr, DIM: tl.constexpr, OPTIMIZER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    last = tl.zeros([1], tl.int64) + rows - 1
    start, kept = span(index, last, last >= 0, KIND, DIM)
    end = tl.sum(start + kept, 0)  # nothing behind the kept weights may change
    first_place = tl.program_id(0).to(tl.int64) * BLOCK
    place = first_place + tl.arange(0, BLOCK)
    live = place < end
    weight = tl.load(values + place, mask=live, other=0)
    gradient = tl.load(grad + place, mask=live, other=0).to(tl.float32) + decay * weight
    first = tl.zeros_like(weight)
    second = tl.zeros_like(weight)
    pair = 2 * first_place + tl.arange(0, 2 * BLOCK)
    if OPTIMIZER == ADAM:
        both = tl.load(state + pair, mask=pair < 2 * end, other=0)
        first, second = tl.split(tl.reshape(both, [BLOCK, 2]))
    elif OPTIMIZER == ADAGRAD:
        first = tl.load(state + place, mask=live, other=0)
    size = tl.load(steps)
    eps = tl.load(steps + 1)
    weight, first, second = moved(weight, gradient, first, second, size, eps, rate1, rate2, OPTIMIZER)
    tl.store(values + place, weight, mask=live)
    if OPTIMIZER == ADAM:
        tl.store(state + pair, tl.interleave(first, second), mask=pair < 2 * end)
    elif OPTIMIZER == ADAGRAD:
        tl.store(state + place, first, mask=live)


def _form(op: str, grad: Tensor, ids: Tensor | None, values: Tensor, rows: int, dim: int) -> int:
    if grad.dtype not in (torch.float32, values.dtype):
        also = "" if values.dtype == torch.float32 else " or that of values"
        raise TypeError(f"{op}: grad has dtype {grad.dtype}, expected {torch.float32}{also}")
    check.tensor(op, "grad", grad, grad.dtype, values.device)
    shape = list(grad.shape)
    if ids is not None:
        check.vector(op, "ids", ids, torch.int64, values.device)
        if shape != [ids.numel(), dim]:
            raise ValueError(f"{op}: grad has shape {shape}, expected [{ids.numel()}, {dim}], a row for each of ids")
        check.ids(op, "ids", ids, rows)
        return ROWS.value
    if grad.dim() == 2:
        if shape != [rows, dim]:
            raise ValueError(f"{op}: grad has shape {shape}, expected [{rows}, {dim}], a dense gradient; or give ids")
        return DENSE.value
    if shape != [values.numel()]:
        raise ValueError(f"{op}: grad has shape {shape}, expected [{values.numel()}], the order of values")
    return PACKED.value


def _run(
    op: str,
    optimizer: int,
    values: Tensor,
    state: Tensor | None,
    state_name: str,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    layout: tuple[int, int, int],
    hyper: tuple[float, float, float, float, float],
    lazy: bool,
    seed: int,
) -> None:
    kind, rows, dim = layout
    lr, beta1, beta2, eps, weight_decay = hyper
    check.table(op, index, cols, values, kind, rows, dim)
    check.options(op, optimizer, *hyper)
    if state is not None:
        check.state(op, state_name, state, optimizer, values.numel(), rows, values.device)
    check.step(op, step, values.device)
    form = _form(op, grad, ids, values, rows, dim)
    steps = coefficients(step, 1, optimizer, lr, beta1, beta2, eps, lazy)
    rates = (weight_decay, 1 - beta1, 1 - beta2)
    block, words = rows_of(dim, SLOTS), index_words(index)
    shape = {**table_shape(kind, dim), "OPTIMIZER": optimizer}
    own = values if state is None else state  # SGD has none, and a kernel must have a pointer
    segments = make_segments(index.new_empty(0) if ids is None else ids, rows)
    n = segments.order.numel()
    tensors = (values, own, step, words, cols, grad, *segments, steps)
    if form == ROWS.value and lazy:
        launch(_rows_kernel, min(n, rows), block, *tensors, n, seed, *rates, **shape, BLOCK=block, ACROSS=1)
        launch(_rows_kernel, long_work(n), LONG.value, *tensors, n, seed, *rates, **shape, BLOCK=1, ACROSS=block)
    elif form == PACKED.value and values.dtype == torch.float32 and optimizer != check.ROWWISE_ADAGRAD:
        how = {"KIND": kind, "DIM": dim, "OPTIMIZER": optimizer, "BLOCK": STREAM_BLOCK}
        work = values.numel() if rows else 0
        launch(_stream_kernel, work, STREAM_BLOCK, values, own, words, grad, steps, rows, *rates, **how)
    else:
        launch(_table_kernel, rows, block, *tensors, rows, n, seed, *rates, **shape, BLOCK=block, FORM=form)
    step += 1
    torch.autograd.graph.increment_version([values] if state is None else [values, state])


def adam_(
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
    """See `recsparse.ops.adam_`."""
    table, hyper = (index, cols, grad, ids, (kind, rows, dim)), (lr, beta1, beta2, eps, weight_decay)
    _run("adam_", check.ADAM, values, moments, "moments", step, *table, hyper, lazy, seed)


def adagrad_(
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
    """See `recsparse.ops.adagrad_`."""
    table, hyper = (index, cols, grad, ids, (kind, rows, dim)), (lr, 0.0, 0.0, eps, weight_decay)
    _run("adagrad_", check.ADAGRAD, values, sums, "sums", step, *table, hyper, lazy, seed)


def rowwise_adagrad_(
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
    """See `recsparse.ops.rowwise_adagrad_`."""
    table, hyper = (index, cols, grad, ids, (kind, rows, dim)), (lr, 0.0, 0.0, eps, weight_decay)
    _run("rowwise_adagrad_", check.ROWWISE_ADAGRAD, values, sums, "sums", step, *table, hyper, lazy, seed)


def sgd_(
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
    """See `recsparse.ops.sgd_`."""
    table, hyper = (index, cols, grad, ids, (kind, rows, dim)), (lr, 0.0, 0.0, 0.0, weight_decay)
    _run("sgd_", check.SGD, values, None, "", step, *table, hyper, lazy, seed)
