"""Reference of the optimiser ops: unpack weights, state and gradient, apply the textbook update, pack again.

`update_dense` is the update itself, which the reference of `bpr_step_` uses too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recsparse.reference.rows import mask_of

STATE_PER_WEIGHT = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 0, "adam": 2}


@dataclass
class Rule:
    """An optimiser and its hyper-parameters; those that it does not have are ignored."""

    name: str
    lr: float
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 0.0
    weight_decay: float = 0.0
    lazy: bool = False


def state_places(mask: Tensor, per_weight: int) -> list[Tensor]:
    """Where the floats of state of the kept weights lie, int64 [nnz] for each of `per_weight` floats."""
    counts = mask.sum(1)
    row = torch.repeat_interleave(torch.arange(mask.shape[0]), counts)
    starts = counts.cumsum(0) - counts
    within = torch.arange(len(row)) - starts[row]
    return [per_weight * starts[row] + k * counts[row] + within for k in range(per_weight)]


def unpack_state(rule: Rule, state: Tensor, mask: Tensor) -> list[Tensor]:
    """Dense state: [rows, dim] for each float that a weight has, or [rows] of the row-wise optimiser."""
    if rule.name == "rowwise_adagrad":
        return [state.clone()]
    dense = []
    for place in state_places(mask, STATE_PER_WEIGHT[rule.name]):
        dense.append(torch.zeros(mask.shape, dtype=state.dtype))
        dense[-1][mask] = state[place]
    return dense


def pack_state_(rule: Rule, state: Tensor, dense: list[Tensor], mask: Tensor) -> None:
    """Inverse of `unpack_state`, into `state`."""
    if rule.name == "rowwise_adagrad":
        state.copy_(dense[0])
        return
    for place, part in zip(state_places(mask, STATE_PER_WEIGHT[rule.name]), dense, strict=True):
        state[place] = part[mask]


def update_dense(
    rule: Rule, step: int, weight: Tensor, state: list[Tensor], gradient: Tensor, mask: Tensor, touched: Tensor
) -> None:
    """Step number `step` (from 1) on dense `weight` and `state`, in place. `touched`: bool [rows]."""
    g = (gradient + rule.weight_decay * weight) * mask
    moves = mask & (touched[:, None] | torch.tensor(not rule.lazy))
    if rule.name == "sgd":
        change = rule.lr * g
    elif rule.name == "adagrad":
        state[0] += torch.where(moves, g * g, 0.0)
        change = rule.lr * g / (state[0].sqrt() + rule.eps)
    elif rule.name == "rowwise_adagrad":
        kept = mask.sum(1).clamp(min=1)
        state[0] += torch.where(moves, g * g, 0.0).sum(1) / kept
        change = rule.lr * g / (state[0].sqrt() + rule.eps)[:, None]
    else:
        m, v = state
        m += torch.where(moves, (g - m) * (1 - rule.beta1), 0.0)
        v += torch.where(moves, (g * g - v) * (1 - rule.beta2), 0.0)
        first, second = 1 - rule.beta1**step, math.sqrt(1 - rule.beta2**step)
        if rule.lazy:
            change = rule.lr * second / first * m / (v.sqrt() + rule.eps)
        else:
            change = rule.lr / first * m / (v.sqrt() / second + rule.eps)
    weight -= torch.where(moves, change, 0.0)


def _apply(
    rule: Rule,
    values: Tensor,
    state: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
) -> None:
    mask = mask_of(index, cols, kind, rows, dim)
    nnz = int(mask.sum())
    touched = torch.ones(rows, dtype=torch.bool)
    if ids is not None:
        bad = (ids < 0) | (ids >= rows)
        if bool(bad.any()):
            at = int(bad.nonzero()[0])
            message = f"{rule.name}_: ids[{at}] = {int(ids[at])} is out of range, expected 0..{rows - 1}"
            raise IndexError(message)
        gradient = torch.zeros(rows, dim)
        for row, part in zip(ids.tolist(), grad, strict=True):
            gradient[row] += part
        touched.zero_()
        touched[ids] = True
    elif grad.dim() == 2:
        gradient = torch.where(mask, grad, 0.0)
    else:
        gradient = torch.zeros(rows, dim)
        gradient[mask] = grad[:nnz]
    weight = torch.zeros(rows, dim)
    weight[mask] = values[:nnz]
    dense_state = unpack_state(rule, state, mask)
    step += 1
    update_dense(rule, int(step), weight, dense_state, gradient, mask, touched)
    values[:nnz] = weight[mask]
    pack_state_(rule, state, dense_state, mask)


def adam_(
    values: Tensor,
    moments: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    lazy: bool,
) -> None:
    """See `recsparse.ops.adam_`."""
    rule = Rule("adam", lr, beta1, beta2, eps, weight_decay, lazy)
    _apply(rule, values, moments, step, index, cols, grad, ids, kind, rows, dim)


def adagrad_(
    values: Tensor,
    sums: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    lr: float,
    eps: float,
    weight_decay: float,
    lazy: bool,
) -> None:
    """See `recsparse.ops.adagrad_`."""
    rule = Rule("adagrad", lr, eps=eps, weight_decay=weight_decay, lazy=lazy)
    _apply(rule, values, sums, step, index, cols, grad, ids, kind, rows, dim)


def rowwise_adagrad_(
    values: Tensor,
    sums: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    lr: float,
    eps: float,
    weight_decay: float,
    lazy: bool,
) -> None:
    """See `recsparse.ops.rowwise_adagrad_`."""
    rule = Rule("rowwise_adagrad", lr, eps=eps, weight_decay=weight_decay, lazy=lazy)
    _apply(rule, values, sums, step, index, cols, grad, ids, kind, rows, dim)


def sgd_(
    values: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    grad: Tensor,
    ids: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    lr: float,
    weight_decay: float,
    lazy: bool,
) -> None:
    """See `recsparse.ops.sgd_`."""
    rule = Rule("sgd", lr, weight_decay=weight_decay, lazy=lazy)
    _apply(rule, values, values.new_empty(0), step, index, cols, grad, ids, kind, rows, dim)
