"""lookup_bag in Triton: sums and means of rows, and their gradients, without a [n, dim] tensor in either direction.

Forward: a tile [bags, columns] of about 1024 slots walks its bags side by side, a row of each at a time, and sums in
registers in ascending position. Bytes: an index line and the values of each row, dim a bag written. Gradient of the
values: as in `lookup`, with the bag's gradient and a factor in place of a row of the gradient. Gradient of the weights:
a tile of positions, one dot product each.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.lookup import report_bad_ids
from recsparse.triton_kernels.numbers import narrow
from recsparse.triton_kernels.rows import decode, expand
from recsparse.triton_kernels.segments import LONG, long_segment, long_work, make_segments, short_segments
from recsparse.triton_kernels.tile import index_words, launch, rows_of, table_shape

SUM, MEAN = 0, 1
SLOTS = 1024


@triton.jit
def _row_values(index, cols, values, ids, at, have, rows, padding, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr):  # noqa: E501  # fmt: skip
    """(values [n, columns], bool [n] whether the row counts) of the ids at positions `at`."""
    row = tl.load(ids + at, mask=have, other=0)
    row = tl.where((row >= 0) & (row < rows), row, 0)
    have = have & (row != padding)
    start, words = decode(index, cols, row, have, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    return tl.load(values + start[:, None] + rank, mask=kept, other=0), have


@triton.jit(do_not_specialize=["bags", "rows", "padding"])
def _bag_kernel(
    index, cols, values, ids, offsets, weights, out, bags, rows, padding,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
    WEIGHTED: tl.constexpr, IS_MEAN: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if values.dtype.element_ty == tl.float64 else tl.float32
    bag = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = bag < bags
    first = tl.load(offsets + bag, mask=live, other=0)
    length = tl.load(offsets + bag + 1, mask=live, other=0) - first
    total = tl.zeros([BLOCK, 32 * WORDS], kind)
    counted = tl.zeros([BLOCK], tl.int32)
    for done in range(0, tl.max(length)):
        have = done < length
        row, have = _row_values(index, cols, values, ids, first + done, have, rows, padding, KIND, DIM, WORDS)
        row = row.to(kind)
        if WEIGHTED:
            row *= tl.load(weights + first + done, mask=have, other=0).to(kind)[:, None]
        total += row
        counted += have.to(tl.int32)
    if IS_MEAN:
        total /= tl.maximum(counted, 1).to(kind)[:, None]
    column = tl.arange(0, 32 * WORDS)[None, :]
    tl.store(
        out + bag[:, None] * DIM + column, narrow(total, out.dtype.element_ty), mask=live[:, None] & (column < DIM)
    )


@triton.jit(do_not_specialize=["count", "padding"])
def _values_backward_kernel(
    grad, index, cols, bag_of, factors, keys, order, number, begin, out, count, padding,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if grad.dtype.element_ty == tl.float64 else tl.float32
    if ACROSS > 1:
        row, head, length = long_segment(keys, number, begin, 0, count)
    else:
        row, head, length = short_segments(keys, begin, 0, count, BLOCK)
    length = tl.where(row == padding, 0, length)
    column = tl.arange(0, 32 * WORDS)[None, :]
    total = tl.zeros([BLOCK * ACROSS, 32 * WORDS], kind)
    step = tl.arange(0, ACROSS) if ACROSS > 1 else tl.zeros([BLOCK], tl.int32)
    for done in range(0, tl.max(length), ACROSS):
        have = done + step < length
        at = tl.load(order + head + done + step, mask=have, other=0)
        bag = tl.load(bag_of + at, mask=have, other=0)
        factor = tl.load(factors + at, mask=have, other=0)
        row_grad = tl.load(grad + bag[:, None] * DIM + column, mask=have[:, None] & (column < DIM), other=0)
        total += factor[:, None] * row_grad.to(kind)
    if ACROSS > 1:
        total = tl.sum(total, 0)[None, :]
    start, words = decode(index, cols, row, length > 0, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    tl.store(out + start[:, None] + rank, narrow(total, out.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=["count", "rows", "padding"])
def _weights_backward_kernel(
    grad, index, cols, values, ids, bag_of, out, count, rows, padding,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if values.dtype.element_ty == tl.float64 else tl.float32
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < count
    row, have = _row_values(index, cols, values, ids, at, live, rows, padding, KIND, DIM, WORDS)
    bag = tl.load(bag_of + at, mask=live, other=0)
    column = tl.arange(0, 32 * WORDS)[None, :]
    bag_grad = tl.load(grad + bag[:, None] * DIM + column, mask=have[:, None] & (column < DIM), other=0)
    tl.store(out + at, narrow(tl.sum(row.to(kind) * bag_grad.to(kind), 1), out.dtype.element_ty), mask=live)


def _closed(op: str, offsets: Tensor, n: int, include_last: bool, device: torch.device) -> Tensor:
    """int64 [bags + 1], from 0 to n."""
    check.vector(op, "offsets", offsets, torch.int64, device)
    if include_last and offsets.numel() < 1:
        raise ValueError(f"{op}: offsets is empty, expected at least the last offset")
    bags = offsets.numel() - int(include_last)
    if bags == 0 and n:
        raise ValueError(f"{op}: {n} ids, but no bag")
    closed = offsets if include_last else torch.cat([offsets, offsets.new_full((1,), n)])
    falls = closed[1:] < closed[:-1]
    if closed.is_cuda:
        right = (closed[0] == 0) & (closed[-1] == n) & ~falls.any()
        torch._assert_async(right, f"{op}: offsets do not ascend from 0 to the number of ids")
        return closed
    if offsets.numel() and int(offsets[0]) != 0:
        raise ValueError(f"{op}: offsets[0] is {int(offsets[0])}, expected 0")
    at = int(falls.nonzero()[0]) + 1 if bool(falls.any()) else 0
    if 0 < at < offsets.numel():
        raise ValueError(
            f"{op}: offsets[{at}] = {int(closed[at])} follows {int(closed[at - 1])}, expected ascending offsets"
        )
    if at:
        raise ValueError(f"{op}: offsets[{bags - 1}] = {int(offsets[-1])} is beyond the {n} ids")
    if int(closed[-1]) != n:
        raise ValueError(f"{op}: the last offset is {int(closed[-1])}, expected the number of ids, {n}")
    return closed


def _check(
    op: str, ids: Tensor, weights: Tensor | None, dtype: torch.dtype, mode: int, padding: int, rows: int
) -> None:
    check.vector(op, "ids", ids, torch.int64, ids.device)
    if mode not in (SUM, MEAN):
        raise ValueError(f"{op}: mode is {mode}, expected 0 (sum) or 1 (mean)")
    check.padding(op, padding, rows)
    if weights is None:
        return
    check.vector(op, "per_sample_weights", weights, dtype, ids.device)
    if mode != SUM:
        raise ValueError(f"{op}: per_sample_weights need mode sum, as in torch")
    if weights.numel() != ids.numel():
        raise ValueError(f"{op}: per_sample_weights has {weights.numel()} entries, expected {ids.numel()} as ids")


def _bag_of(closed: Tensor, n: int) -> Tensor:
    """int64 [n]: the bag of each position."""
    return torch.searchsorted(closed, torch.arange(n, device=closed.device), right=True) - 1


def lookup_bag_backward(
    grad: Tensor,
    index: Tensor,
    cols: Tensor,
    ids: Tensor,
    offsets: Tensor,
    per_sample_weights: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    mode: int,
    include_last_offset: bool,
    padding: int,
    capacity: int,
) -> Tensor:
    """[capacity] of the dtype of `grad`; see the schema of `recsparse::lookup_bag_backward`."""
    op, n = "lookup_bag_backward", ids.numel()
    check.floating("grad", op, grad)
    check.index(op, index, cols, capacity, kind, rows, dim)
    _check(op, ids, per_sample_weights, grad.dtype, mode, padding, rows)
    closed = _closed(op, offsets, n, include_last_offset, index.device)
    out = torch.zeros(capacity, dtype=grad.dtype, device=grad.device)
    valid = torch.where((ids < 0) | (ids >= rows), 0, ids)
    bag_of = _bag_of(closed, n)
    arithmetic = torch.float64 if grad.dtype == torch.float64 else torch.float32
    factors = torch.ones(n, dtype=arithmetic, device=grad.device)
    if per_sample_weights is not None:
        factors = per_sample_weights.detach().to(arithmetic)
    elif mode == MEAN:
        counted = torch.cat([closed.new_zeros(1), (valid != padding).cumsum(0)])
        factors = 1 / (counted[closed[1:]] - counted[closed[:-1]]).clamp(min=1).to(arithmetic)[bag_of]
    segments = make_segments(valid, rows)
    tensors = (grad.contiguous(), index_words(index), cols, bag_of, factors, *segments, out, n, padding)
    shape, block = table_shape(kind, dim), rows_of(dim, SLOTS)
    launch(_values_backward_kernel, min(n, rows), block, *tensors, **shape, BLOCK=block, ACROSS=1)
    launch(_values_backward_kernel, long_work(n), LONG.value, *tensors, **shape, BLOCK=1, ACROSS=block)
    return out


def lookup_bag_weights_backward(
    grad: Tensor,
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    ids: Tensor,
    offsets: Tensor,
    kind: int,
    rows: int,
    dim: int,
    include_last_offset: bool,
    padding: int,
) -> Tensor:
    """[n] of the dtype of `grad`; see the schema of `recsparse::lookup_bag_weights_backward`."""
    op, n = "lookup_bag_weights_backward", ids.numel()
    check.table(op, index, cols, values, kind, rows, dim, check.FLOATING)
    _check(op, ids, None, grad.dtype, SUM, padding, rows)
    closed = _closed(op, offsets, n, include_last_offset, index.device)
    out = torch.zeros(n, dtype=grad.dtype, device=grad.device)
    block = rows_of(dim, SLOTS)
    tensors = (
        grad.contiguous(),
        index_words(index),
        cols,
        values.detach(),
        ids,
        _bag_of(closed, n),
        out,
        n,
        rows,
        padding,
    )
    launch(_weights_backward_kernel, n, block, *tensors, **table_shape(kind, dim), BLOCK=block)
    return out


class _LookupBag(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weights: Tensor | None, index: Tensor, cols: Tensor, ids: Tensor, offsets: Tensor,
        *rest: int,
    ) -> Tensor:  # fmt: skip
        kind, rows, dim, mode, include_last, padding, bounds = rest
        closed = _closed("lookup_bag", offsets, ids.numel(), bool(include_last), index.device)
        report_bad_ids("lookup_bag", ids, rows, bounds)
        # The values are needed for the gradient of the weights alone: elsewhere they may change before the backward.
        weighted = weights is not None and ctx.needs_input_grad[1]
        ctx.save_for_backward(index, cols, ids, offsets, weights, values if weighted else None)
        ctx.layout, ctx.capacity = (kind, rows, dim, mode, bool(include_last), padding), values.numel()
        out = values.new_empty(closed.numel() - 1, dim)
        block = rows_of(dim, SLOTS)
        own = values if weights is None else weights
        tensors = (
            index.view(torch.int32),
            cols,
            values.detach(),
            ids,
            closed,
            own.detach(),
            out,
            out.shape[0],
            rows,
            padding,
        )
        how = {"WEIGHTED": weights is not None, "IS_MEAN": mode == MEAN, "BLOCK": block}
        launch(_bag_kernel, out.shape[0], block, *tensors, **table_shape(kind, dim), **how)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        index, cols, ids, offsets, weights, values = ctx.saved_tensors
        kind, rows, dim, _, include_last, padding = ctx.layout
        of_values = of_weights = None
        if ctx.needs_input_grad[0]:
            of_values = lookup_bag_backward(grad, index, cols, ids, offsets, weights, *ctx.layout, ctx.capacity)
        if values is not None:
            layout = (kind, rows, dim, include_last, padding)
            of_weights = lookup_bag_weights_backward(grad, index, cols, values, ids, offsets, *layout)
        return of_values, of_weights, *[None] * 11


def lookup_bag(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    ids: Tensor,
    offsets: Tensor,
    per_sample_weights: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    mode: int = 0,
    include_last_offset: bool = False,
    padding: int = -1,
    bounds: int = 0,
) -> Tensor:
    """[bags, dim] of the dtype of the values; see `recsparse.ops.lookup_bag`."""
    check.table("lookup_bag", index, cols, values, kind, rows, dim, check.FLOATING)
    _check("lookup_bag", ids, per_sample_weights, values.dtype, mode, padding, rows)
    layout = (kind, rows, dim, mode, include_last_offset, padding, bounds)
    result: Tensor = _LookupBag.apply(values, per_sample_weights, index, cols, ids, offsets, *layout)
    return result
