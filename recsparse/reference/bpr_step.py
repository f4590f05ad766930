"""Reference of `bpr_step_`: unpack, autograd, lazy Adam on the touched rows of dense moments, round, pack again."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recsparse.reference.rounding import round_stochastic, rounding_bits
from recsparse.reference.rows import unpack


def bpr_loss(dense: Tensor, users: Tensor, pos: Tensor, neg: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """(softplus part, whole loss) of one mini-batch; users, pos and neg are row ids of `dense` [rows, dim]."""
    u, i, j = dense[users], dense[pos], dense[neg]
    ranking = softplus((u * j).sum(1) - (u * i).sum(1)).mean()
    squares = u.square().sum() + i.square().sum() + j.square().sum()
    return ranking, ranking + l2 / (2 * len(users)) * squares


def bpr_step_(
    values: Tensor,
    moments: Tensor,
    index: Tensor,
    cols: Tensor,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    kind: int,
    rows: int,
    dim: int,
    item_offset: int,
    batch_size: int,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    l2: float,
    seed: int,
) -> Tensor:
    """float32 [mini-batches]; see `recsparse.ops.bpr_step_`."""
    dense, mask = unpack(index, cols, values.float(), kind, rows, dim)
    position = mask.cumsum(1) - 1  # of a kept weight within its row
    counts = mask.sum(1)
    row = torch.repeat_interleave(torch.arange(rows), counts)
    first = torch.arange(len(row)) + (counts.cumsum(0) - counts)[row]  # slot of each kept weight's first moment
    second = first + counts[row]
    m, v = torch.zeros_like(dense), torch.zeros_like(dense)
    m[mask], v[mask] = moments[first], moments[second]
    losses = []
    for batch in range(0, len(users), batch_size):
        part = slice(batch, batch + batch_size)
        u, i, j = users[part], item_offset + pos[part], item_offset + neg[part]
        leaf = dense.clone().requires_grad_()
        ranking, loss = bpr_loss(leaf, u, i, j, l2)
        (gradient,) = torch.autograd.grad(loss, leaf)
        touched = torch.cat([u, i, j]).unique()
        g = (gradient * mask)[touched]
        step += 1
        m[touched] += (g - m[touched]) * (1 - beta1)
        v[touched] += (g * g - v[touched]) * (1 - beta2)
        size = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        weights = dense[touched] - size * m[touched] / (v[touched].sqrt() + eps)
        random = rounding_bits(seed, step, touched[:, None], position[touched])
        dense[touched] = round_stochastic(weights, values.dtype, random).float()
        losses.append(ranking.detach())
    values[: len(row)] = dense[mask].to(values.dtype)
    moments[first], moments[second] = m[mask], v[mask]
    return torch.stack(losses) if losses else moments.new_empty(0)
