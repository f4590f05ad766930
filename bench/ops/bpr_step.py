"""One BPR mini-batch step, forward, backward and Adam: ``ops.bpr_step_`` against ways to write it in torch.

Peers come in three kinds, said in the note of each row: ``lazy`` trains the touched rows of the dense table (the
semantics of torch.optim.SparseAdam), ``lazy, masked`` only their kept weights (what ours does), ``dense`` is
torch.optim.Adam, which also moves the rows that a batch does not touch. Each is checked against its own formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from recsparse.optim import Adam
from recsparse.table import DTYPES, PackedTable

from .. import inputs, memory
from ..registry import Case, Trial, register_op

CHUNK = 64
CHECK_STEPS = 3
LR, BETA1, BETA2, EPS, L2 = 1e-3, 0.9, 0.999, 1e-8, 1e-4
SCALE = 0.1  # of the weights
USER_SHARE = 29_858 / 69_716  # Gowalla's users in its joint table of users and items


@dataclass
class DenseState:
    """Weights and Adam moments of the dense peers. They share one copy: what is timed does not depend on the values."""

    w: Tensor
    m: Tensor
    v: Tensor


@dataclass
class LossFall:
    """Answer of a provider whose result no formula predicts: mean loss before and after it has trained."""

    before: float
    after: float


class BprProblem:
    """A joint table of users (first) and items, and a pool of mini-batches of (user, positive, negative)."""

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.n_users = max(1, round(case.rows * USER_SHARE))
        self.initial = inputs.masked_dense(case, scale=SCALE)
        self.n_sets = (24 if case.cold else 4) * CHUNK
        source = inputs.generator(2)
        count = self.n_sets * case.batch
        self.users = inputs.draw_ids(count, self.n_users, case.ids, source)
        self.pos = inputs.draw_ids(count, case.rows - self.n_users, case.ids, source)
        self.neg = inputs.draw_ids(count, case.rows - self.n_users, "uniform", source)

    def batches(self, number: int, count: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Users, positives and negatives of ``count`` consecutive mini-batches, a view of the pool."""
        start = number % (self.n_sets // count) * count * self.case.batch
        cut = slice(start, start + count * self.case.batch)
        return self.users[cut], self.pos[cut], self.neg[cut]

    def rows(self, number: int) -> Tensor:
        """Table rows of one mini-batch: users, then positives, then negatives."""
        users, pos, neg = self.batches(number)
        return torch.cat([users, pos + self.n_users, neg + self.n_users])

    @cached_property
    def check_rows(self) -> Tensor:
        return torch.cat([self.rows(number) for number in range(CHECK_STEPS)]).unique()

    @cached_property
    def table(self) -> PackedTable:
        return inputs.pack_table(self.initial, self.initial != 0, self.case.kind, self.case.value_type)

    @cached_property
    def packed_initial(self) -> Tensor:
        return self.table.values.clone()

    @cached_property
    def optimizer(self) -> Adam:
        return self.new_optimizer(self.table)

    def new_optimizer(self, table: PackedTable) -> Adam:
        return Adam(table, lr=LR, betas=(BETA1, BETA2), eps=EPS)

    @cached_property
    def dense(self) -> DenseState:
        w, m, v = (memory.empty(*self.initial.shape) for _ in range(3))
        return DenseState(w.copy_(self.initial), m.zero_(), v.zero_())

    @cached_property
    def mask(self) -> Tensor:
        """float32 [rows, dim], as published methods store it: a bool mask would be converted in every product."""
        return memory.empty(*self.initial.shape).copy_(self.initial != 0)

    @cached_property
    def scratch(self) -> Tensor:
        """float32 [rows, dim] of zeros, for the peer that sums the gradients of repeated rows in place."""
        return memory.empty(*self.initial.shape).zero_()

    def reset_packed(self, optimizer: Adam) -> None:
        self.table.values.copy_(self.packed_initial)
        optimizer.moments.zero_()
        optimizer.step.zero_()

    def reset_dense(self) -> None:
        self.dense.w.copy_(self.initial)
        self.dense.m.zero_()
        self.dense.v.zero_()

    def expected(self, masked: bool, lazy: bool) -> tuple[Tensor, Tensor]:
        """Mean BPR losses of the first steps, and the touched rows after them, in float64."""
        touched = self.check_rows
        w = self.initial[touched].double()
        mask = (w != 0).double() if masked else torch.ones_like(w)
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        losses = []
        for step in range(1, CHECK_STEPS + 1):
            place = torch.searchsorted(touched, self.rows(step - 1))
            leaf = w.clone().requires_grad_()
            user, pos, neg = leaf[place].view(3, -1, self.case.dim).unbind()
            loss = functional.softplus((user * (neg - pos)).sum(1)).mean()
            penalty = 0.5 * L2 * (user.square().sum() + pos.square().sum() + neg.square().sum()) / len(user)
            (gradient,) = torch.autograd.grad(loss + penalty, leaf)
            gradient *= mask
            moved = torch.zeros(len(w), 1, dtype=torch.bool)
            moved[place] = True
            moved |= not lazy
            m = torch.where(moved, BETA1 * m + (1 - BETA1) * gradient, m)
            v = torch.where(moved, BETA2 * v + (1 - BETA2) * gradient.square(), v)
            first, second = 1 - BETA1**step, math.sqrt(1 - BETA2**step)
            # SparseAdam adds eps to the uncorrected root of v, Adam to the corrected one.
            move = m * second / (v.sqrt() + EPS) if lazy else m / (v.sqrt() / second + EPS)
            w = w - torch.where(moved, LR / first * move, 0.0) * mask
            losses.append(loss.detach())
        return torch.stack(losses), w


class BprStep:
    name = "bpr_step"
    unit = "samples"
    shown = ("rows", "dim", "density", "kind", "batch", "ids", "dtype", "cold")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        if quick:
            return [
                Case(rows=3000, dim=64, density=0.1, batch=64),
                Case(rows=3000, dim=64, density=1.0, batch=64, kind="full"),
            ]
        if device == "cuda":
            return [Case(rows=10_000_000, dim=64, density=0.1, batch=65_536)]
        return [
            Case(rows=69_716, dim=64, density=0.1, batch=2048),
            Case(rows=4_000_000, dim=64, density=0.1, batch=2048),
            Case(rows=69_716, dim=64, density=1.0, batch=2048, kind="full"),
        ]

    def problem(self, case: Case, providers: int) -> BprProblem:
        return BprProblem(case, providers)

    def check(self, problem: BprProblem, trial: Trial) -> str | None:
        """Losses to 1e-5; rows to 5 % of a step of Adam, whose direction rounding can turn where gradients cancel.

        Stochastic rounding may move a weight by a step of its type at each of its updates.
        """
        answer = trial.answer(CHECK_STEPS)
        if isinstance(answer, LossFall):
            fell = answer.after < 0.99 * answer.before
            return None if fell else f"the loss does not fall: {answer.before:.5f} to {answer.after:.5f}"
        losses, rows, masked, lazy = answer
        want_losses, want_rows = problem.expected(masked, lazy)
        rounding = SCALE * torch.finfo(DTYPES[trial.dtype]).eps
        near = 1e-5 + 0.1 * rounding
        if losses.shape != want_losses.shape or not torch.allclose(losses.double(), want_losses, rtol=1e-5, atol=near):
            return f"losses of the first steps are {losses.tolist()}, expected {want_losses.tolist()}"
        error = float((rows.double() - want_rows).abs().max())
        allowed = 0.05 * LR + CHECK_STEPS * rounding
        return None if error <= allowed else f"a weight differs by {error:.2e} after {CHECK_STEPS} steps"


register_op(BprStep())
