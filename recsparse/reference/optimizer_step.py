"""Reference of the optimiser ops: unpack weights, state and gradient, apply the textbook update, pack again.

`update_dense` is the update itself, which the reference of `bpr_step_` uses too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recsparse.reference.rounding import round_stochastic, rounding_bits
from recsparse.reference.rows import mask_of

NAMES = ("sgd", "adagrad", "rowwise_adagrad", "adam")  # in the order of their codes
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


def unpack_state(rule: Rule, state: Tensor, mask: Tensor) -> list[Tensor]:
    """Dense state: [rows, dim] for each float that a weight has, or [rows] of the row-wise optimiser."""
    if rule.name == "rowwise_adagrad":
        return [state.clone()]
    per_weight, nnz = STATE_PER_WEIGHT[rule.name], int(mask.sum())
    dense = [torch.zeros(mask.shape) for _ in range(per_weight)]
    for k, part in enumerate(dense):
        part[mask] = state[k : per_weight * nnz : per_weight]
    return dense


def pack_state_(rule: Rule, state: Tensor, dense: list[Tensor], mask: Tensor) -> None:
    """Inverse of `unpack_state`, into `state`."""
    if rule.name == "rowwise_adagrad":
        state.copy_(dense[0])
        return
    per_weight, nnz = STATE_PER_WEIGHT[rule.name], int(mask.sum())
    for k, part in enumerate(dense):
        state[k : per_weight * nnz : per_weight] = part[mask]


def update_dense(
    rule: Rule,
    step: int,
    weight: Tensor,
    state: list[Tensor],
    gradient: Tensor,
    mask: Tensor,
    touched: Tensor,
    dtype: torch.dtype,
    seed: int,
) -> None:
    """Step number `step` (from 1) on dense float32 `weight`, stored as `dtype`, and `state`, in place.

    `touched`: bool [rows].
    """
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
    row, position = torch.arange(len(mask))[:, None], mask.cumsum(1) - 1
    rounded = round_stochastic(weight - change, dtype, rounding_bits(seed, step, row, position)).float()
    weight.copy_(torch.where(moves, rounded, weight))


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
    seed: int,
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
        for row, part in zip(ids.tolist(), grad.float(), strict=True):
            gradient[row] += part
        touched.zero_()
        touched[ids] = True
    elif grad.dim() == 2:
        gradient = torch.where(mask, grad.float(), 0.0)
    else:
        gradient = torch.zeros(rows, dim)
        gradient[mask] = grad[:nnz].float()
    weight = torch.zeros(rows, dim)
    weight[mask] = values[:nnz].float()
    dense_state = unpack_state(rule, state, mask)
    step += 1
    update_dense(rule, int(step), weight, dense_state, gradient, mask, touched, values.dtype, seed)
    values[:nnz] = weight[mask].to(values.dtype)
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
    seed: int,
) -> None:
    """See `recsparse.ops.adam_`."""
    rule = Rule("adam", lr, beta1, beta2, eps, weight_decay, lazy)
    _apply(rule, values, moments, step, index, cols, grad, ids, kind, rows, dim, seed)


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
    seed: int,
) -> None:
    """See `recsparse.ops.adagrad_`."""
    rule = Rule("adagrad", lr, eps=eps, weight_decay=weight_decay, lazy=lazy)
    _apply(rule, values, sums, step, index, cols, grad, ids, kind, rows, dim, seed)


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
    seed: int,
) -> None:
    """See `recsparse.ops.rowwise_adagrad_`."""
    rule = Rule("rowwise_adagrad", lr, eps=eps, weight_decay=weight_decay, lazy=lazy)
    _apply(rule, values, sums, step, index, cols, grad, ids, kind, rows, dim, seed)


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
    seed: int,
) -> None:
    """See `recsparse.ops.sgd_`."""
    rule = Rule("sgd", lr, weight_decay=weight_decay, lazy=lazy)
    _apply(rule, values, values.new_empty(0), step, index, cols, grad, ids, kind, rows, dim, seed)
