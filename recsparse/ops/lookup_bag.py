"""Sums and means of rows of a packed table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices
from recsparse.ops.lookup import BOUNDS

if TYPE_CHECKING:
    from recsparse.table import PackedTable

MODES = {"sum": 0, "mean": 1}

_native.load()


def lookup_bag(
    table: PackedTable,
    ids: Tensor,
    offsets: Tensor,
    *,
    mode: str = "sum",
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
    bounds: str = "fatal",
    values: Tensor | None = None,
) -> Tensor:
    """Sum or mean of the rows of each bag: `torch.nn.functional.embedding_bag` on the masked weight.

    No [n, dim] tensor exists, in the forward or in the backward. A bag is summed in ascending position; the gradient of
    the values is [capacity] of their dtype in packed order, in which the occurrences of a row are summed in ascending
    position. The same bits for any number of threads. Differentiable with respect to the values and to
    `per_sample_weights`.

    Args:
        table: the packed table.
        ids: int64 [n] row ids of all bags, one bag after the other.
        offsets: int64 [bags], ascending from 0: where each bag begins in `ids`. Empty bags give zeros.
        mode: `sum` or `mean`.
        per_sample_weights: [n] factors, of the dtype of the values, of the rows, for mode `sum`.
        include_last_offset: `offsets` is [bags + 1] and ends with n.
        padding_idx: a row that adds nothing, is not counted in a mean and gets no gradient.
        bounds: what an id outside [0, rows) does, see `lookup`.
        values: stands for `table.values` where given: a tensor with the same contents that takes the gradient.

    Returns:
        [bags, dim] of the dtype of the values; 16-bit values are summed in float32.

    Raises:
        IndexError: an id is out of range and bounds is `fatal`; names the first one.
        TypeError, ValueError: wrong dtype, device, layout or shape, offsets that do not ascend from 0 to at most n, or
            `per_sample_weights` in mode `mean`.
    """
    if bounds not in BOUNDS:
        raise ValueError(f"bounds is {bounds!r}, expected one of {', '.join(BOUNDS)}")
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
    result: Tensor = implementation(table.backend).lookup_bag(
        table.index,
        table.cols,
        table.values if values is None else values,
        ids,
        offsets,
        per_sample_weights,
        *table.layout,
        MODES[mode],
        include_last_offset,
        -1 if padding_idx is None else padding_idx,
        BOUNDS[bounds],
    )
    return result


@torch.library.register_fake("recsparse::lookup_bag")
def _(
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
    check_devices("lookup_bag", values, index=index, cols=cols, ids=ids, offsets=offsets)
    return values.new_empty(offsets.shape[0] - int(include_last_offset), dim)


@torch.library.register_fake("recsparse::lookup_bag_backward")
def _(
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
    check_devices("lookup_bag_backward", grad, index=index, cols=cols, ids=ids, offsets=offsets)
    return grad.new_empty(capacity)


@torch.library.register_fake("recsparse::lookup_bag_weights_backward")
def _(
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
    check_devices("lookup_bag_weights_backward", grad, index=index, cols=cols, values=values, ids=ids, offsets=offsets)
    return grad.new_empty(ids.shape[0])
