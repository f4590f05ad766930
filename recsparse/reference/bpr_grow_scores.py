"""Reference of `bpr_grow_scores`: the dense gradient, sorted."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse.reference.bpr_step import bpr_loss
from recsparse.reference.rows import unpack


def bpr_grow_scores(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    kind: int,
    rows: int,
    dim: int,
    item_offset: int,
    limit: int,
) -> tuple[Tensor, Tensor]:
    """(keys int64 ascending, scores float32); see `recsparse.ops.bpr_grow_scores`."""
    dense, mask = unpack(index, cols, values.float(), kind, rows, dim)
    leaf = dense.requires_grad_()
    ranking, _ = bpr_loss(leaf, users, item_offset + pos, item_offset + neg, 0.0)
    (gradient,) = torch.autograd.grad(ranking, leaf)
    scores = (gradient.abs() * ~mask).view(-1)
    keys = scores.nonzero()[:, 0]
    order = torch.sort(scores[keys], descending=True, stable=True).indices[:limit]
    keys = keys[order].sort().values
    return keys, scores[keys]
