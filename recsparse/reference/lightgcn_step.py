"""Reference of `lightgcn_step_` and `lightgcn_grow_scores`: unpack, layers one by one, autograd, pack again."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse.reference.bpr_step import bpr_loss
from recsparse.reference.optimizer_step import NAMES, Rule, pack_state_, unpack_state, update_dense
from recsparse.reference.rows import unpack
from recsparse.reference.spmm import spmm

Graph = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def layer_mean(graph: Graph, dense: Tensor, layers: int, half_hidden: bool) -> Tensor:
    """The mean of layers 0..K. With `half_hidden` layers between are rounded to bfloat16 and back."""
    layer, total = dense, dense
    for k in range(layers):
        layer = spmm(*graph, layer)
        if half_hidden and k + 1 < layers:
            layer = layer.bfloat16().to(dense.dtype)
        total = total + layer
    return total / (layers + 1)


def lightgcn_loss(
    graph: Graph, dense: Tensor, rows: tuple[Tensor, Tensor, Tensor], layers: int, half_hidden: bool, l2: float
) -> tuple[Tensor, Tensor]:
    """(softplus part, whole loss) of one mini-batch; `rows` are the row ids of users, positives and negatives."""
    ranking, _ = bpr_loss(layer_mean(graph, dense, layers, half_hidden), *rows, 0.0)
    _, regularised = bpr_loss(dense, *rows, l2)
    plain, _ = bpr_loss(dense, *rows, 0.0)
    return ranking, ranking + regularised - plain


def lightgcn_step_(
    values: Tensor,
    state: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    offsets: Tensor,
    neighbours: Tensor,
    node: Tensor,
    slot: Tensor,
    scale: Tensor,
    chunks: Tensor,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    kind: int,
    rows: int,
    dim: int,
    item_offset: int,
    batch_size: int,
    layers: int,
    half_hidden: bool,
    optimizer: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    l2: float,
    seed: int,
) -> Tensor:
    """float32 [mini-batches]; see `recsparse.ops.lightgcn_step_`."""
    graph = (offsets, neighbours, node, slot, scale, chunks)
    rule = Rule(NAMES[optimizer], lr, beta1, beta2, eps, weight_decay, lazy=False)
    dense, mask = unpack(index, cols, values.float(), kind, rows, dim)
    dense_state = unpack_state(rule, state, mask)
    everything = torch.ones(rows, dtype=torch.bool)
    losses = []
    for batch in range(0, len(users), batch_size):
        part = slice(batch, batch + batch_size)
        leaf = dense.clone().requires_grad_()
        ids = (users[part], item_offset + pos[part], item_offset + neg[part])
        ranking, loss = lightgcn_loss(graph, leaf, ids, layers, half_hidden, l2)
        (gradient,) = torch.autograd.grad(loss, leaf)
        step += 1
        update_dense(rule, int(step), dense, dense_state, gradient * mask, mask, everything, values.dtype, seed)
        losses.append(ranking.detach())
    values[: int(mask.sum())] = dense[mask].to(values.dtype)
    pack_state_(rule, state, dense_state, mask)
    return torch.stack(losses) if losses else torch.empty(0)


def lightgcn_grow_scores(
    values: Tensor,
    index: Tensor,
    cols: Tensor,
    offsets: Tensor,
    neighbours: Tensor,
    node: Tensor,
    slot: Tensor,
    scale: Tensor,
    chunks: Tensor,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    kind: int,
    rows: int,
    dim: int,
    item_offset: int,
    layers: int,
    half_hidden: bool,
    limit: int,
) -> tuple[Tensor, Tensor]:
    """(keys int64 ascending, scores float32); see `recsparse.ops.lightgcn_grow_scores`."""
    graph = (offsets, neighbours, node, slot, scale, chunks)
    dense, mask = unpack(index, cols, values.float(), kind, rows, dim)
    leaf = dense.requires_grad_()
    ids = (users, item_offset + pos, item_offset + neg)
    ranking, _ = lightgcn_loss(graph, leaf, ids, layers, half_hidden, 0.0)
    (gradient,) = torch.autograd.grad(ranking, leaf)
    scores = (gradient.abs() * ~mask).view(-1)
    keys = scores.nonzero()[:, 0]
    order = torch.sort(scores[keys], descending=True, stable=True).indices[:limit]
    keys = keys[order].sort().values
    return keys, scores[keys]
