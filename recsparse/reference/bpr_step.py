"""Reference of `bpr_step_`: unpack, autograd, the lazy optimiser on dense weights and state, pack again."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recsparse.reference.optimizer_step import NAMES, Rule, pack_state_, unpack_state, update_dense
from recsparse.reference.rows import unpack


def bpr_loss(dense: Tensor, users: Tensor, pos: Tensor, neg: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """(softplus part, whole loss) of one mini-batch; users, pos and neg are row ids of `dense` [rows, dim]."""
    u, i, j = dense[users], dense[pos], dense[neg]
    ranking = softplus((u * j).sum(1) - (u * i).sum(1)).mean()
    squares = u.square().sum() + i.square().sum() + j.square().sum()
    return ranking, ranking + l2 / (2 * len(users)) * squares


def bpr_step_(
    values: Tensor,
    state: Tensor,
    step: Tensor,
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
    optimizer: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    l2: float,
    seed: int,
) -> Tensor:
    """float32 [mini-batches]; see `recsparse.ops.bpr_step_`."""
    rule = Rule(NAMES[optimizer], lr, beta1, beta2, eps, weight_decay, lazy=True)
    dense, mask = unpack(index, cols, values.float(), kind, rows, dim)
    dense_state = unpack_state(rule, state, mask)
    losses = []
    for batch in range(0, len(users), batch_size):
        part = slice(batch, batch + batch_size)
        u, i, j = users[part], item_offset + pos[part], item_offset + neg[part]
        leaf = dense.clone().requires_grad_()
        ranking, loss = bpr_loss(leaf, u, i, j, l2)
        (gradient,) = torch.autograd.grad(loss, leaf)
        touched = torch.zeros(rows, dtype=torch.bool)
        touched[torch.cat([u, i, j])] = True
        step += 1
        update_dense(rule, int(step), dense, dense_state, gradient * mask, mask, touched, values.dtype, seed)
        losses.append(ranking.detach())
    values[: int(mask.sum())] = dense[mask].to(values.dtype)
    pack_state_(rule, state, dense_state, mask)
    return torch.stack(losses) if losses else state.new_empty(0)
