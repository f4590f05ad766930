"""BPR training steps written in torch, from the usual ones to the fastest that we could write without new kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .. import inputs, memory
from ..ops.bpr_step import BETA1, BETA2, EPS, L2, LR, BprProblem
from ..registry import ANYWHERE, Traffic, Trial, provider

Step = Callable[[int], Tensor]


def _trial(problem: BprProblem, step: Step, *, held: int, traffic: Traffic, masked: bool, lazy: bool) -> Trial:
    def answer(steps: int) -> tuple[Tensor, Tensor, bool, bool]:
        problem.reset_dense()
        losses = torch.stack([step(number).detach() for number in range(steps)])
        return losses, problem.dense.w.detach()[problem.check_rows], masked, lazy

    note = ("lazy" if lazy else "dense") + (", masked" if masked else "")
    return Trial(step, answer, traffic, held, problem.case.batch, note=note)


def _autograd(
    problem: BprProblem, optimizer: torch.optim.Optimizer, *, sparse: bool = False, mask: Tensor | None = None
) -> Step:
    weight, batch = optimizer.param_groups[0]["params"][0], problem.case.batch

    def step(number: int) -> Tensor:
        table = weight if mask is None else weight * mask
        embedded = functional.embedding(problem.rows(number), table, sparse=sparse)
        user, pos, neg = embedded.view(3, batch, -1).unbind()
        loss = functional.softplus((user * (neg - pos)).sum(1)).mean()
        (loss + 0.5 * L2 / batch * embedded.square().sum()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def _touched(problem: BprProblem, arrays: int) -> Traffic:
    """Rows of a mini-batch read and written in so many dense arrays."""
    return inputs.dense_gather(3 * problem.case.batch, problem.case, passes=2 * arrays)


@provider("bpr_step", "torch.SparseAdam", devices=ANYWHERE)
def sparse_adam(problem: BprProblem) -> Trial:
    state = problem.dense
    weight = torch.nn.Parameter(state.w)
    optimizer = torch.optim.SparseAdam([weight], lr=LR, betas=(BETA1, BETA2), eps=EPS)
    optimizer.state[weight] = {"step": 0, "exp_avg": state.m, "exp_avg_sq": state.v}
    step = _autograd(problem, optimizer, sparse=True)
    held = memory.nbytes(state.w, state.m, state.v)
    return _trial(problem, step, held=held, traffic=_touched(problem, 3), masked=False, lazy=True)


def _dense_adam(problem: BprProblem, masked: bool = False, **options: Any) -> Trial:
    state = problem.dense
    weight = torch.nn.Parameter(state.w)
    optimizer = torch.optim.Adam([weight], lr=LR, betas=(BETA1, BETA2), eps=EPS, **options)
    # The fused form counts its steps on the device, the others on the host.
    steps = torch.zeros((), device=weight.device if options.get("fused") else "cpu")
    optimizer.state[weight] = {"step": steps, "exp_avg": state.m, "exp_avg_sq": state.v}
    step = _autograd(problem, optimizer, mask=problem.mask if masked else None)
    # The gradient is zeroed and read; weight and both moments are read and written. With a mask: the product of weight
    # and mask, and that of gradient and mask, are two reads and a write each.
    traffic = Traffic(stream=(14 if masked else 8) * problem.case.slots * inputs.FLOAT)
    held = memory.nbytes(state.w, state.m, state.v, *([problem.mask] if masked else []))
    return _trial(problem, step, held=held, traffic=traffic, masked=masked, lazy=False)


@provider("bpr_step", "torch.Adam(fused)", devices=ANYWHERE)
def fused_adam(problem: BprProblem) -> Trial:
    return _dense_adam(problem, fused=True)


@provider("bpr_step", "torch.Adam(foreach)", devices=ANYWHERE)
def foreach_adam(problem: BprProblem) -> Trial:
    return _dense_adam(problem, foreach=True)


@provider("bpr_step", "torch.Adam", devices=ANYWHERE)
def default_adam(problem: BprProblem) -> Trial:
    return _dense_adam(problem)


def _gradients(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean BPR loss of [3 * batch, dim] user, positive and negative rows, and its gradient with the L2 term."""
    batch = len(rows) // 3
    user, pos, neg = rows.view(3, batch, -1).unbind()
    difference = neg - pos
    score = (user * difference).sum(1)
    gradient = rows * (L2 / batch)
    slope = score.sigmoid().div_(batch).unsqueeze(1)
    gradient[:batch].addcmul_(slope, difference)
    pull = slope * user
    gradient[batch : 2 * batch].sub_(pull)
    gradient[2 * batch :].add_(pull)
    return functional.softplus(score).mean(), gradient


def _apply(problem: BprProblem, step: int, ids: Tensor, rows: Tensor, gradient: Tensor) -> None:
    """Adam on the given rows of the dense state, by the formula of SparseAdam. Repeated ids carry equal rows."""
    state = problem.dense
    m = state.m.index_select(0, ids).lerp_(gradient, 1 - BETA1)
    v = state.v.index_select(0, ids).mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    state.m.index_copy_(0, ids, m)
    state.v.index_copy_(0, ids, v)
    rate = LR * math.sqrt(1 - BETA2**step) / (1 - BETA1**step)
    state.w.index_copy_(0, ids, rows.addcdiv(m, v.sqrt_().add_(EPS), value=-rate))


@provider("bpr_step", "torch.lazy_adam[unique]", devices=ANYWHERE)
def lazy_adam_unique(problem: BprProblem) -> Trial:
    """No autograd; gradients of repeated rows are summed after ``torch.unique``."""
    state, steps = problem.dense, 0

    @torch.no_grad()
    def step(number: int) -> Tensor:
        nonlocal steps
        steps += 1
        ids, place = problem.rows(number).unique(return_inverse=True)
        rows = state.w.index_select(0, ids)
        loss, gradient = _gradients(rows.index_select(0, place))
        _apply(problem, steps, ids, rows, torch.zeros_like(rows).index_add_(0, place, gradient))
        return loss

    held = memory.nbytes(state.w, state.m, state.v)
    return _trial(problem, step, held=held, traffic=_touched(problem, 3), masked=False, lazy=True)


def _lazy_adam_scratch(problem: BprProblem, masked: bool) -> Trial:
    state, scratch, steps = problem.dense, problem.scratch, 0
    mask = problem.mask if masked else None

    @torch.no_grad()
    def step(number: int) -> Tensor:
        nonlocal steps
        steps += 1
        ids = problem.rows(number)
        rows = state.w.index_select(0, ids)
        kept = None if mask is None else mask.index_select(0, ids)
        loss, gradient = _gradients(rows if kept is None else rows.mul_(kept))
        gradient = scratch.index_add_(0, ids, gradient).index_select(0, ids)
        scratch.index_fill_(0, ids, 0.0)
        _apply(problem, steps, ids, rows, gradient if kept is None else gradient.mul_(kept))
        return loss

    arrays = [state.w, state.m, state.v, scratch, *([] if mask is None else [mask])]
    traffic = _touched(problem, len(arrays))
    return _trial(problem, step, held=memory.nbytes(*arrays), traffic=traffic, masked=masked, lazy=True)


@provider("bpr_step", "torch.lazy_adam[scratch]", devices=ANYWHERE)
def lazy_adam_scratch(problem: BprProblem) -> Trial:
    """No autograd, no sort: repeated rows are summed in a dense table of zeros, at the price of its memory."""
    return _lazy_adam_scratch(problem, masked=False)


@provider("bpr_step", "weight x mask lazy_adam", devices=ANYWHERE)
def lazy_adam_masked(problem: BprProblem) -> Trial:
    """The fastest form above with the weights and gradients multiplied by a mask, as published methods do."""
    return _lazy_adam_scratch(problem, masked=True)


@provider("bpr_step", "weight x mask Adam(fused)", devices=ANYWHERE)
def fused_adam_masked(problem: BprProblem) -> Trial:
    """Dense Adam on the masked weight: the usual code of published methods, with the fastest Adam."""
    return _dense_adam(problem, masked=True, fused=True)
