"""Reference of `spmm`: one edge after the other, by index_add in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def edges_of(offsets: Tensor, neighbours: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
    """(row, column) node ids int64 of every entry of the matrix."""
    return torch.repeat_interleave(node.long(), offsets.diff()), neighbours.long()


def spmm(
    offsets: Tensor, neighbours: Tensor, node: Tensor, slot: Tensor, scale: Tensor, chunks: Tensor, x: Tensor
) -> Tensor:
    """See `recsparse.ops.spmm`; differentiable by torch itself."""
    rows, cols = edges_of(offsets, neighbours, node)
    weight = (scale[rows].double() * scale[cols])[:, None]
    return torch.zeros(x.shape, dtype=torch.float64).index_add(0, rows, weight * x.double()[cols]).to(x.dtype)
