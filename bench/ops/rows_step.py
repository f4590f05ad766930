"""Train some rows of a table: look them up, take a gradient for each, update them.

Ours is a ``SparseEmbedding`` that is updated in its backward; peers are embedding modules on dense tables. They train
the touched rows of dense tables, ours and the masked one only their kept weights; each is checked against its own
formula.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from recsparse.table import PackedTable

from .. import inputs, memory
from ..axes import ROW_OPTIMIZERS
from ..registry import Case, Trial, register_op

CHECK_STEPS = 3
LR, BETA1, BETA2, EPS = 1e-2, 0.9, 0.999, 1e-8
SCALE = 0.1  # of the weights


class RowsProblem:
    """One table, dense and packed, sets of ids, and a gradient [batch, dim] of the looked-up rows, the same for all
    sets: in training it has just been computed, and is in the cache."""

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.initial = inputs.masked_dense(case, scale=SCALE)
        self.n_sets = inputs.count_sets(case, providers, case.batch * 8, case.batch * 4 * inputs.LINE)
        source = inputs.generator(2)
        self.ids = [inputs.draw_ids(case.batch, case.rows, case.ids, source) for _ in range(self.n_sets)]
        self.gradient = torch.empty(case.batch, case.dim).normal_(0.0, 0.01, generator=source)

    @cached_property
    def check_rows(self) -> Tensor:
        return torch.cat(self.ids[:CHECK_STEPS]).unique()

    @cached_property
    def table(self) -> PackedTable:
        return inputs.pack_table(self.initial, self.initial != 0, self.case.kind)

    @cached_property
    def dense(self) -> Tensor:
        """The weight of the dense peers, float32 [rows, dim]: one copy, as timing does not depend on the values."""
        return memory.copied(self.initial)

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Of the dense peers' Adam, shared likewise."""
        first, second = (memory.empty(*self.initial.shape).zero_() for _ in range(2))
        return first, second

    @cached_property
    def mask(self) -> Tensor:
        """float32 [rows, dim], as published methods store it."""
        return memory.empty(*self.initial.shape).copy_(self.initial != 0)

    def reset_dense(self) -> None:
        self.dense.copy_(self.initial)
        for moment in self.moments:
            moment.zero_()

    def expected(self, masked: bool) -> Tensor:
        """The check rows after the first steps, in float64."""
        touched = self.check_rows
        w = self.initial[touched].double()
        mask = (w != 0).double() if masked else torch.ones_like(w)
        kept = mask.sum(1, keepdim=True).clamp(min=1)
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        for step in range(1, CHECK_STEPS + 1):
            place = torch.searchsorted(touched, self.ids[step - 1])
            g = torch.zeros_like(w).index_add_(0, place, self.gradient.double()) * mask
            moved = torch.zeros(len(w), 1, dtype=torch.bool)
            moved[place] = True
            if self.case.optimizer == "adam":
                m = torch.where(moved, BETA1 * m + (1 - BETA1) * g, m)
                v = torch.where(moved, BETA2 * v + (1 - BETA2) * g.square(), v)
                move = math.sqrt(1 - BETA2**step) / (1 - BETA1**step) * m / (v.sqrt() + EPS)
            else:
                v = v + g.square().sum(1, keepdim=True) / kept
                move = g / (v.sqrt() + EPS)
            w = w - torch.where(moved, LR * move, 0.0) * mask
        return w


class RowsStep:
    name = "rows_step"
    unit = "rows"
    shown = ("rows", "dim", "density", "kind", "batch", "ids", "optimizer", "cold")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        rows, batch = (10_000_000, 65_536) if device == "cuda" else (1_000_000, 16_384)
        if quick:
            rows, batch = 3000, 300
        case = Case(rows=rows, dim=64, density=0.2, batch=batch)
        return [replace(case, optimizer=name) for name in ROW_OPTIMIZERS]

    def problem(self, case: Case, providers: int) -> RowsProblem:
        return RowsProblem(case, providers)

    def check(self, problem: RowsProblem, trial: Trial) -> str | None:
        """To 1 % of a step."""
        rows, masked = trial.answer(CHECK_STEPS)
        want = problem.expected(masked)
        if rows.shape != want.shape:
            return f"the rows have shape {tuple(rows.shape)}, expected {tuple(want.shape)}"
        error = float((rows.double() - want).abs().max())
        if math.isnan(error) or error > 0.01 * LR:
            return f"a weight differs by {error:.2e} after {CHECK_STEPS} steps"
        return None


register_op(RowsStep())
