"""Reference of `lookup`: unpack everything, then index."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from recsparse.reference.rows import unpack


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
    """[n, dim] of the values' dtype; see `recsparse.ops.lookup`."""
    bad = (ids < 0) | (ids >= rows)
    if bool(bad.any()) and bounds != 2:
        at = int(bad.nonzero()[0])
        message = f"lookup: ids[{at}] = {int(ids[at])} is out of range, expected 0..{rows - 1}"
        if bounds == 0:
            raise IndexError(message)
        warnings.warn(message, stacklevel=2)
    valid = torch.where(bad, 0, ids)
    found = unpack(index, cols, values, kind, rows, dim)[0][valid]
    rows_of_ids = torch.where((valid == padding)[:, None], found.detach(), found)
    return rows_of_ids if out is None else out.copy_(rows_of_ids)
