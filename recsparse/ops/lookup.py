"""Rows of a packed table by id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native
from recsparse.backend import resolve_backend
from recsparse.layout import KINDS
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices

if TYPE_CHECKING:
    from recsparse.table import PackedTable

BOUNDS = {"fatal": 0, "warning": 1, "ignore": 2}

_native.load()


def lookup(
    table: PackedTable,
    ids: Tensor,
    *,
    bounds: str = "fatal",
    out: Tensor | None = None,
    values: Tensor | None = None,
    padding_idx: int | None = None,
) -> Tensor:
    """Gather rows into a dense tensor; slots that are not kept read 0.

    Differentiable with respect to `table.values`: the gradient is a [capacity] tensor of their dtype in packed order,
    in which duplicate ids are summed in float32 in ascending position (the same bits for any number of threads).

    Args:
        table: the packed table.
        ids: int64 [n] row ids.
        bounds: what an id outside [0, rows) does: `fatal` raises, `warning` warns once a call and reads row 0, `ignore`
            reads row 0 (the modes of FBGEMM's bounds check).
        out: [n, dim] of the dtype of the values to write to; the result is not differentiable then. With a bad id and
            bounds `fatal` its contents are undefined.
        values: stands for `table.values` where given: a tensor with the same contents that takes the gradient.
        padding_idx: a row that gets no gradient.

    Returns:
        [n, dim] of the dtype of the values.

    Raises:
        IndexError: an id is out of range and bounds is `fatal`; names the first one.
        TypeError, ValueError: wrong dtype, device, layout or shape.
    """
    if bounds not in BOUNDS:
        raise ValueError(f"bounds is {bounds!r}, expected one of {', '.join(BOUNDS)}")
    arguments = (
        table.index,
        table.cols,
        table.values if values is None else values,
        ids,
        *table.layout,
        BOUNDS[bounds],
        -1 if padding_idx is None else padding_idx,
    )
    op = implementation(table.backend).lookup
    result: Tensor = op(*arguments) if out is None else op(*arguments, out=out)
    return result


def sum_rows(grad: Tensor, ids: Tensor, rows: int, *, backend: str = "auto") -> Tensor:
    """The gradient of a dense array from those of rows of it: row r is the sum of the rows of `grad` whose id is r, in
    ascending position (the same bits for any number of threads).

    Args:
        grad: float32, float16 or bfloat16 [n, dim], dim 1..256.
        ids: int64 [n], in [0, rows).
        rows: rows of the result.
        backend: see `recsparse.backend.resolve_backend`; not `reference`.

    Returns:
        [rows, dim] of the dtype of `grad`.
    """
    own = implementation(resolve_backend(backend, grad.device.type))
    nothing, dim = ids.new_empty(0), grad.shape[1]
    sums: Tensor = own.lookup_backward(
        grad, nothing, nothing.to(torch.uint8), ids, KINDS["full"], rows, dim, -1, rows * dim
    )
    return sums.view(rows, dim)


@torch.library.register_fake("recsparse::lookup")
def _(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    ids: Tensor,
    kind: int,
    rows: int,
    dim: int,
    bounds: int = 0,
    padding: int = -1,
) -> Tensor:
    check_devices("lookup", values, index=index, cols=cols, ids=ids)
    return values.new_empty(ids.shape[0], dim)


@torch.library.register_fake("recsparse::lookup_backward")
def _(
    grad: Tensor,
    index: Tensor,
    cols: Tensor,
    ids: Tensor,
    kind: int,
    rows: int,
    dim: int,
    padding: int,
    capacity: int,
) -> Tensor:
    check_devices("lookup_backward", grad, index=index, cols=cols, ids=ids)
    return grad.new_empty(capacity)
