"""Rows of a packed table by id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native
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
