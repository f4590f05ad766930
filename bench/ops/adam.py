"""A full step of Adam from a gradient that is there: ``ops.adam_`` on kept weights against Adam on dense tables.

Ours takes the packed gradient that ``lookup`` gives to autograd and moves every kept weight, as torch.optim.Adam does
on the masked dense weight. Each peer is checked against its own formula: with the mask, or on all slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsparse.table import PackedTable

from .. import inputs, memory
from ..registry import Case, Trial, register_op

CHECK_STEPS = 3
CHECK_ROWS = 4096
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8
SCALE = 0.1  # of the weights


@dataclass
class DenseState:
    """Weights and moments of the dense peers. They share one copy: what is timed does not depend on the values."""

    w: Tensor
    m: Tensor
    v: Tensor


class AdamProblem:
    """One table and one gradient, dense and packed. A step reads and writes far more than the caches hold, so one input
    set is as cold as many."""

    n_sets = 1

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.initial = inputs.masked_dense(case, scale=SCALE)
        self.gradient = memory.empty(case.rows, case.dim).normal_(0.0, 0.01, generator=inputs.generator(2))
        self.check_rows = torch.randint(case.rows, (CHECK_ROWS,), generator=inputs.generator(3))

    @cached_property
    def table(self) -> PackedTable:
        return inputs.pack_table(self.initial, self.initial != 0, self.case.kind)

    @cached_property
    def packed_gradient(self) -> Tensor:
        """float32 [nnz], in the order of the table's values."""
        return memory.copied(self.gradient[self.initial != 0])

    @cached_property
    def dense(self) -> DenseState:
        w, m, v = (memory.empty(*self.initial.shape) for _ in range(3))
        return DenseState(w.copy_(self.initial), m.zero_(), v.zero_())

    @cached_property
    def mask(self) -> Tensor:
        """float32 [rows, dim], as published methods store it."""
        return memory.empty(*self.initial.shape).copy_(self.initial != 0)

    def reset_dense(self) -> None:
        self.dense.w.copy_(self.initial)
        self.dense.m.zero_()
        self.dense.v.zero_()

    def expected(self, masked: bool) -> Tensor:
        """The check rows after the first steps, in float64."""
        w, g = self.initial[self.check_rows].double(), self.gradient[self.check_rows].double()
        if masked:
            g = g * (w != 0)
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        for step in range(1, CHECK_STEPS + 1):
            m = BETA1 * m + (1 - BETA1) * g
            v = BETA2 * v + (1 - BETA2) * g.square()
            root = (v / (1 - BETA2**step)).sqrt() + EPS
            w = w - LR / (1 - BETA1**step) * m / root
        return w


class Adam:
    name = "adam"
    unit = "slots"
    shown = ("rows", "dim", "density", "kind")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        if device == "cuda" and not quick:
            # A tenth of 1.6e9 slots, and 1e9 kept weights.
            return [
                Case(rows=25_000_000, dim=64, density=0.1),
                Case(rows=15_625_000, dim=64, density=1.0, kind="full"),
            ]
        return [Case(rows=3000 if quick else 1_000_000, dim=64, density=0.1)]

    def problem(self, case: Case, providers: int) -> AdamProblem:
        return AdamProblem(case, providers)

    def check(self, problem: AdamProblem, trial: Trial) -> str | None:
        """To 1 % of a step."""
        rows, masked = trial.answer(CHECK_STEPS)
        want = problem.expected(masked)
        if rows.shape != want.shape:
            return f"the rows have shape {tuple(rows.shape)}, expected {tuple(want.shape)}"
        error = float((rows.double() - want).abs().max())
        if math.isnan(error) or error > 0.01 * LR:
            return f"a weight differs by {error:.2e} after {CHECK_STEPS} steps"
        return None


register_op(Adam())
