"""Fused mini-batch steps of LightGCN on a packed table, and the growth scores of its slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices

if TYPE_CHECKING:
    from recsparse.graph import Graph
    from recsparse.optim import TableOptimizer
    from recsparse.table import PackedTable

HIDDEN = {torch.float32: False, torch.bfloat16: True}

_native.load()


def lightgcn_step_(
    table: PackedTable,
    optimizer: TableOptimizer,
    graph: Graph,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    *,
    layers: int,
    batch_size: int,
    l2: float = 0.0,
    hidden: torch.dtype = torch.float32,
) -> Tensor:
    """Train on consecutive mini-batches of triples, in place.

    The score of a user and an item is the dot product of their rows in the mean of layers 0..K, layer k + 1 being
    D^-1/2 A D^-1/2 times layer k, and layer 0 the table (He et al., SIGIR 2020, arXiv 2002.02126). The loss of a
    mini-batch of B triples is mean softplus(s_neg - s_pos) + l2 / (2B) sum(|e_u|^2 + |e_i|^2 + |e_j|^2) with e the rows
    of layer 0. Every kept weight gets one update a mini-batch, as torch.optim gives it on the masked dense table: the
    gradient reaches nearly all rows.

    Two dense [nodes, dim] arrays of type `hidden` are held during the call, whatever the number of layers; no dense
    gradient of the table is. The same bits for any number of threads.

    Args:
        table: layer 0, users in rows [0, graph.n_users), items behind them.
        optimizer: one of this table; its step advances by the number of mini-batches.
        graph: train interactions of as many nodes as the table has rows.
        users, pos, neg: int64 [n] user ids, and item ids of positives and negatives.
        layers: K, at least 1.
        batch_size: triples a mini-batch; the last one may be shorter.
        l2: weight of the regulariser.
        hidden: float32, or bfloat16: half the memory and traffic of the layers between; sums stay float32.

    Returns:
        float32 [ceil(n / batch_size)], the mean softplus part of each mini-batch's loss.

    Raises:
        IndexError: an id is out of range; nothing has changed then.
        TypeError, ValueError: wrong dtype, device, layout or shape.
    """
    if optimizer.table is not table:
        raise ValueError("lightgcn_step_: the optimizer belongs to another table")
    step: Callable[..., Tensor] = implementation(table.backend).lightgcn_step_
    return step(
        table.values,
        optimizer.state,
        optimizer.step,
        table.index,
        table.cols,
        *graph.tensors,
        users,
        pos,
        neg,
        *table.layout,
        graph.n_users,
        batch_size,
        layers,
        _half("lightgcn_step_", hidden),
        *optimizer.hyper,
        l2,
        optimizer.seed,
    )


def lightgcn_grow_scores(
    table: PackedTable,
    graph: Graph,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    *,
    layers: int,
    limit: int,
    hidden: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """|dL/dw| of the slots that are not kept, L = mean softplus(s_neg - s_pos) over the triples, at current weights.

    What `bpr_grow_scores` is to matrix factorisation. Arguments as `lightgcn_step_`.

    Args:
        limit: candidates to return at most: the largest scores, ties to the lower key.

    Returns:
        (keys int64 ascending, flat row * dim + column; scores float32 > 0).
    """
    scores: Callable[..., tuple[Tensor, Tensor]] = implementation(table.backend).lightgcn_grow_scores
    return scores(
        table.values,
        table.index,
        table.cols,
        *graph.tensors,
        users,
        pos,
        neg,
        *table.layout,
        graph.n_users,
        layers,
        _half("lightgcn_grow_scores", hidden),
        limit,
    )


def _half(op: str, hidden: torch.dtype) -> bool:
    if hidden not in HIDDEN:
        raise TypeError(f"{op}: hidden is {hidden}, expected torch.float32 or torch.bfloat16")
    return HIDDEN[hidden]


@torch.library.register_fake("recsparse::lightgcn_step_")
def _(
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
    check_devices(
        "lightgcn_step_", values, state=state, step=step, index=index, cols=cols, users=users, pos=pos, neg=neg
    )
    return state.new_empty((users.shape[0] + batch_size - 1) // batch_size)


@torch.library.register_fake("recsparse::lightgcn_grow_scores")
def _(
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
    check_devices("lightgcn_grow_scores", values, index=index, cols=cols, users=users, pos=pos, neg=neg)
    found = torch.library.get_ctx().new_dynamic_size()
    return users.new_empty(found), values.new_empty(found, dtype=torch.float32)
