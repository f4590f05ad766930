"""Fused mini-batch steps of Bayesian personalised ranking on a packed table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices

if TYPE_CHECKING:
    from recsparse.optim import TableOptimizer
    from recsparse.table import PackedTable

_native.load()


def bpr_step_(
    table: PackedTable,
    optimizer: TableOptimizer,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    *,
    item_offset: int,
    batch_size: int,
    l2: float = 0.0,
) -> Tensor:
    """Train on consecutive mini-batches of triples, in place.

    The loss of a mini-batch of B triples is mean softplus(s_neg - s_pos) + l2 / (2B) sum(|e_u|^2 + |e_i|^2 + |e_j|^2)
    with s = e_u . e_i (Rendle et al., UAI 2009; the regulariser of LightGCN). Gradients are taken at the weights before
    the mini-batch, duplicates are summed, then each touched row gets one lazy update. No dense row and no gradient
    tensor is stored. The same bits for any number of threads.

    Weights stored in 16 bits are read as float32, updated in float32 and written back with stochastic rounding
    (Gupta et al., ICML 2015, arXiv 1502.02551): unbiased, so that updates far below the resolution of the type add up.
    Its random bits are a pure function of (optimizer.seed, step, row, position in the row).

    Args:
        table: joint table, users in rows [0, item_offset), items behind them.
        optimizer: one of this table; its step advances by the number of mini-batches. Always lazy.
        users: int64 [n] user ids.
        pos: int64 [n] item ids of positives (row item_offset + id).
        neg: int64 [n] item ids of negatives.
        item_offset: number of user rows.
        batch_size: triples a mini-batch; the last one may be shorter.
        l2: weight of the regulariser.

    Returns:
        float32 [ceil(n / batch_size)], the mean softplus part of each mini-batch's loss.

    Raises:
        IndexError: an id is out of range; nothing has changed then.
        TypeError, ValueError: wrong dtype, device, layout or shape.
    """
    if optimizer.table is not table:
        raise ValueError("bpr_step_: the optimizer belongs to another table")
    step: Callable[..., Tensor] = implementation(table.backend).bpr_step_
    return step(
        table.values,
        optimizer.state,
        optimizer.step,
        table.index,
        table.cols,
        users,
        pos,
        neg,
        *table.layout,
        item_offset,
        batch_size,
        *optimizer.hyper,
        l2,
        optimizer.seed,
    )


@torch.library.register_fake("recsparse::bpr_step_")
def _(
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
    check_devices("bpr_step_", values, state=state, step=step, index=index, cols=cols, users=users, pos=pos, neg=neg)
    return state.new_empty((users.shape[0] + batch_size - 1) // batch_size)
