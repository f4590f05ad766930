"""soft_threshold in Triton: rows of a dense table through learned thresholds, and its gradients.

A program takes a tile [rows, columns] of about 1024 slots: twice as many would leave registers on the stack. Bytes a
row: 8 of the id, dim values read and dim written, and its thresholds; backward the gradient besides. Where rows share
thresholds each program leaves the sums of its tile, which are then added in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.lookup import lookup_backward
from recsparse.triton_kernels.tile import SLOTS, launch


@triton.jit
def _tile(values, thresholds, ids, count, ROWS: tl.constexpr, DIM: tl.constexpr, COLS: tl.constexpr,
          BY_ROW: tl.constexpr, BY_COLUMN: tl.constexpr, GIVEN: tl.constexpr):  # fmt: skip
    """(place of the tile in dense rows, which of it there is, values, sigmoid of their thresholds)"""
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLS)[None, :]
    row = at
    if GIVEN:
        row = tl.load(ids + at, mask=at < count, other=0)
    there = (at < count)[:, None] & (column < DIM)
    value = tl.load(values + row[:, None] * DIM + column, mask=there, other=0)
    width: tl.constexpr = DIM if BY_COLUMN else 1
    place = column * 0
    if BY_COLUMN:
        place += column
    place = place + row[:, None] * (width if BY_ROW else 0)
    gate = tl.sigmoid(tl.load(thresholds + place, mask=there, other=0))
    return at[:, None] * DIM + column, there, value, gate


@triton.jit(do_not_specialize=["count"])
def _forward_kernel(
    values, thresholds, ids, out, count,
    ROWS: tl.constexpr, DIM: tl.constexpr, COLS: tl.constexpr,
    BY_ROW: tl.constexpr, BY_COLUMN: tl.constexpr, GIVEN: tl.constexpr,
):  # fmt: skip
    place, there, value, gate = _tile(
        values, thresholds, ids, count, ROWS, DIM, COLS, BY_ROW, BY_COLUMN, GIVEN
    )  # fmt: skip
    left = tl.abs(value) - gate
    left = tl.where(left <= 0, 0.0, left)  # NaN stays NaN
    tl.store(out + place, tl.where(value > 0, left, 0.0 - left), mask=there)


@triton.jit(do_not_specialize=["count"])
def _backward_kernel(
    values, thresholds, ids, grad, of_values, of_thresholds, count,
    ROWS: tl.constexpr, DIM: tl.constexpr, COLS: tl.constexpr,
    BY_ROW: tl.constexpr, BY_COLUMN: tl.constexpr, GIVEN: tl.constexpr,
):  # fmt: skip
    place, there, value, gate = _tile(
        values, thresholds, ids, count, ROWS, DIM, COLS, BY_ROW, BY_COLUMN, GIVEN
    )  # fmt: skip
    alive = there & (tl.abs(value) - gate > 0)
    live = tl.where(alive, tl.load(grad + place, mask=alive, other=0), 0.0)
    tl.store(of_values + place, live, mask=there)
    slope = gate * (1.0 - gate) * live
    slope = tl.where(value > 0, 0.0 - slope, slope)
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    if BY_ROW and BY_COLUMN:
        tl.store(of_thresholds + place, slope, mask=there)
    elif BY_ROW:
        tl.store(of_thresholds + at, tl.sum(slope, 1), mask=at < count)
    else:  # the sums of the tile
        column = tl.arange(0, COLS)
        tl.store(of_thresholds + tl.program_id(0) * DIM + column, tl.sum(slope, 0), mask=column < DIM)


def _checked(op: str, values: Tensor, thresholds: Tensor, ids: Tensor | None) -> tuple[int, dict[str, int]]:
    """(rows of the result, the compile-time arguments)"""
    check.tensor(op, "values", values, torch.float32, values.device)
    check.tensor(op, "thresholds", thresholds, torch.float32, values.device)
    if values.dim() != 2 or not 1 <= values.shape[1] <= 256:
        raise ValueError(f"{op}: values has shape {list(values.shape)}, expected [rows, dim] with dim 1..256")
    rows, dim = values.shape
    if thresholds.dim() != 2 or thresholds.shape[0] not in (1, rows) or thresholds.shape[1] not in (1, dim):
        raise ValueError(f"{op}: thresholds has shape {list(thresholds.shape)}, expected [1 or {rows}, 1 or {dim}]")
    if ids is not None:
        check.vector(op, "ids", ids, torch.int64, values.device)
        check.ids(op, "ids", ids, rows)
    columns = max(16, triton.next_power_of_2(dim))
    shape = {"DIM": dim, "COLS": columns, "ROWS": max(1, SLOTS // 2 // columns)}
    own = {"BY_ROW": thresholds.shape[0] != 1, "BY_COLUMN": thresholds.shape[1] != 1, "GIVEN": ids is not None}
    return rows if ids is None else ids.numel(), shape | own


def soft_threshold_backward(
    grad: Tensor, values: Tensor, thresholds: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows; see `recsparse.ops.soft_threshold_backward`."""
    op = "soft_threshold_backward"
    count, shape = _checked(op, values, thresholds, ids)
    grad = grad.contiguous()
    check.tensor(op, "grad", grad, torch.float32, values.device)
    if grad.shape != (count, shape["DIM"]):
        raise ValueError(f"{op}: grad has shape {list(grad.shape)}, expected [{count}, {shape['DIM']}]")
    of_values = torch.empty_like(grad)
    programs = triton.cdiv(count, shape["ROWS"])
    sizes = (count, shape["DIM"] if shape["BY_COLUMN"] else 1) if shape["BY_ROW"] else (programs, shape["DIM"])
    of_thresholds = grad.new_empty(sizes)
    # There need not be ids; a kernel must have a pointer.
    tensors = (values.detach(), thresholds.detach(), values if ids is None else ids, grad, of_values, of_thresholds)
    launch(_backward_kernel, count, shape["ROWS"], *tensors, count, **shape)
    if not shape["BY_ROW"]:
        of_thresholds = of_thresholds.sum(0, keepdim=True, dtype=torch.float64).float()
        if not shape["BY_COLUMN"]:
            of_thresholds = of_thresholds.sum(1, keepdim=True)
    return of_values, of_thresholds


class _SoftThreshold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, thresholds: Tensor, ids: Tensor | None) -> Tensor:
        count, shape = _checked("soft_threshold", values, thresholds, ids)
        ctx.save_for_backward(values, thresholds, ids)
        out = values.new_empty(count, shape["DIM"])
        tensors = (values.detach(), thresholds.detach(), values if ids is None else ids, out)
        launch(_forward_kernel, count, shape["ROWS"], *tensors, count, **shape)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        values, thresholds, ids = ctx.saved_tensors
        of_values, of_thresholds = soft_threshold_backward(grad, values, thresholds, ids)
        if ids is not None:
            of_values = _sum_rows(of_values, ids, len(values))
            if len(thresholds) != 1:
                of_thresholds = _sum_rows(of_thresholds, ids, len(values))
        return of_values, of_thresholds, None


def _sum_rows(grad: Tensor, ids: Tensor, rows: int) -> Tensor:
    nothing, dim = ids.new_empty(0), grad.shape[1]
    sums = lookup_backward(grad, nothing, nothing.to(torch.uint8), ids, 0, rows, dim, -1, rows * dim)
    return sums.view(rows, dim)


def soft_threshold(values: Tensor, thresholds: Tensor, ids: Tensor | None = None) -> Tensor:
    """[n, dim]; see `recsparse.ops.soft_threshold`."""
    result: Tensor = _SoftThreshold.apply(values, thresholds, ids)
    return result
