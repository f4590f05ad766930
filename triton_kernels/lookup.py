"""lookup in Triton.

Forward: a program takes a tile [rows, columns] of about 2048 slots. Bytes a row: one 64-byte index line, its values (1
or 2 lines at 10 % of d = 64), 8 of the id, and dim values written. All lines of a tile are requested before any is
used; the output is written in whole lines. Nothing is computed in floating point: values move as integers.

Backward: ids are sorted, and a tile of segments (`segments.py`) sums the gradients of its occurrences in ascending
position. Bytes: the gradient once, 20 of sorted keys an id, and the kept columns of each distinct row written.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.numbers import narrow
from recsparse.triton_kernels.rows import decode, expand
from recsparse.triton_kernels.segments import LONG, long_segment, long_work, make_segments, short_segments, sum_rows
from recsparse.triton_kernels.tile import SLOTS, bits_of, index_words, launch, rows_of, table_shape


@triton.jit(do_not_specialize=["count", "rows"])
def _lookup_kernel(
    index, cols, values, ids, out, count, rows,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < count
    row = tl.load(ids + at, mask=live, other=0)
    row = tl.where((row >= 0) & (row < rows), row, 0)
    start, words = decode(index, cols, row, live, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    value = tl.load(values + start[:, None] + rank, mask=kept, other=0)
    column = tl.arange(0, 32 * WORDS)[None, :]
    tl.store(out + at[:, None] * DIM + column, value, mask=live[:, None] & (column < DIM))


@triton.jit(do_not_specialize=["count", "padding"])
def _backward_kernel(
    grad, index, cols, keys, order, number, begin, out, count, padding,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    if ACROSS > 1:
        row, head, length = long_segment(keys, number, begin, 0, count)
    else:
        row, head, length = short_segments(keys, begin, 0, count, BLOCK)
    length = tl.where(row == padding, 0, length)
    width = tl.full([BLOCK], DIM, tl.int32)
    total = sum_rows(grad, order, 0, head, length, 0, width, BLOCK, ACROSS, DIM, 32 * WORDS)
    start, words = decode(index, cols, row, length > 0, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    tl.store(out + start[:, None] + rank, narrow(total, out.dtype.element_ty), mask=kept)


def lookup_backward(
    grad: Tensor, index: Tensor, cols: Tensor, ids: Tensor, kind: int, rows: int, dim: int, padding: int, capacity: int
) -> Tensor:
    """[capacity] of the dtype of `grad`; see the schema of `recsparse::lookup_backward`."""
    op = "lookup_backward"
    check.floating("grad", op, grad)
    check.index(op, index, cols, capacity, kind, rows, dim)
    check.vector(op, "ids", ids, torch.int64, index.device)
    check.padding(op, padding, rows)
    n = ids.numel()
    if grad.shape != (n, dim):
        raise ValueError(f"{op}: grad has shape {list(grad.shape)}, expected [{n}, {dim}]")
    out = torch.zeros(capacity, dtype=grad.dtype, device=grad.device)
    segments = make_segments(torch.where((ids < 0) | (ids >= rows), 0, ids), rows)
    # Segments and the kernel have the same order of arguments.
    tensors = (grad.contiguous(), index_words(index), cols, *segments, out, n, padding)
    shape, block = table_shape(kind, dim), rows_of(dim, SLOTS // 2)  # twice as many registers a slot as the forward
    launch(_backward_kernel, min(n, rows), block, *tensors, **shape, BLOCK=block, ACROSS=1)
    launch(_backward_kernel, long_work(n), LONG.value, *tensors, **shape, BLOCK=1, ACROSS=block)
    return out


def report_bad_ids(op: str, ids: Tensor, rows: int, bounds: int) -> None:
    """Acts on ids outside the table as `bounds` says. A warning reads their number back; nothing else waits."""
    if bounds not in (0, 1, 2):
        raise ValueError(f"{op}: bounds is {bounds}, expected 0, 1 or 2")
    if rows == 0 and ids.numel():
        raise IndexError(f"{op}: ids given for a table without rows")
    if bounds == 0 and ids.is_cuda:
        check.ids(op, "ids", ids, rows)
    elif bounds < 2:
        bad = (ids < 0) | (ids >= rows)
        count = int(bad.sum())
        if count == 0:
            return
        at = int(bad.nonzero()[0])
        if bounds == 0:
            raise IndexError(
                f"{op}: ids[{at}] = {int(ids[at])} is out of range, expected 0..{rows - 1} "
                f"({count} of {ids.numel()} ids are)"
            )
        warnings.warn(
            f"{op}: {count} of {ids.numel()} ids are out of range 0..{rows - 1}, first ids[{at}] = {int(ids[at])}; "
            "row 0 was read instead",
            stacklevel=2,
        )


def _forward(
    index: Tensor, cols: Tensor, values: Tensor, ids: Tensor, kind: int, rows: int, dim: int, bounds: int, out: Tensor
) -> Tensor:
    report_bad_ids("lookup", ids, rows, bounds)
    n, block = ids.numel(), rows_of(dim)
    tensors = (index_words(index), cols, bits_of(values), ids, bits_of(out), n, rows)
    launch(_lookup_kernel, n, block, *tensors, **table_shape(kind, dim), BLOCK=block)
    return out


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, cols: Tensor, ids: Tensor, *rest: int) -> Tensor:
        kind, rows, dim, bounds, padding = rest
        ctx.save_for_backward(index, cols, ids)
        ctx.layout = kind, rows, dim, padding, values.numel()
        return _forward(index, cols, values, ids, kind, rows, dim, bounds, values.new_empty(ids.numel(), dim))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        index, cols, ids = ctx.saved_tensors
        return lookup_backward(grad, index, cols, ids, *ctx.layout), *[None] * 8


def lookup(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    ids: Tensor,
    kind: int,
    rows: int,
    dim: int,
    bounds: int = 0,
    padding: int = -1,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """[n, dim] of the dtype of the values; see `recsparse.ops.lookup`."""
    check.table("lookup", index, cols, values, kind, rows, dim, check.FLOATING)
    check.vector("lookup", "ids", ids, torch.int64, index.device)
    check.padding("lookup", padding, rows)
    if out is None:
        return _Lookup.apply(values, index, cols, ids, kind, rows, dim, bounds, padding)
    check.tensor("lookup", "out", out, values.dtype, values.device)
    if out.shape != (ids.numel(), dim):
        raise ValueError(f"lookup: out has shape {list(out.shape)}, expected [{ids.numel()}, {dim}]")
    return _forward(index, cols, values, ids, kind, rows, dim, bounds, out)
