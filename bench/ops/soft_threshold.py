"""Rows of a dense table through learned thresholds (the search of PEP): ``ops.soft_threshold`` against torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import inputs, memory
from ..registry import Case, Traffic, Trial, register_op

SCALE = 0.3  # of the weights: about a half is above its threshold
CENTRE = -1.5  # of the thresholds, before the sigmoid


class SoftThresholdProblem:
    """A dense table with a threshold for each element, and id sets."""

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        source = inputs.generator(1)
        self.values = memory.empty(case.rows, case.dim).normal_(0.0, SCALE, generator=source)
        self.thresholds = memory.empty(case.rows, case.dim).normal_(CENTRE, 0.5, generator=source)
        line = inputs.dense_line(case.dim * inputs.FLOAT)
        self.n_sets = inputs.count_sets(case, providers, case.batch * 8, case.batch * 2 * line)
        self.ids = [inputs.draw_ids(case.batch, case.rows, case.ids, source) for _ in range(self.n_sets)]

    @property
    def traffic(self) -> Traffic:
        """A row of weights and one of thresholds, the id, and the result."""
        row = self.case.dim * inputs.FLOAT
        return Traffic(
            gather=2 * self.case.batch * row,
            line=inputs.dense_line(row),
            table=2 * self.case.rows * row,
            stream=self.case.batch * (8 + row),
        )

    @property
    def whole_traffic(self) -> Traffic:
        """What published code moves: the whole thresholded table is written, then rows of it are gathered."""
        row = self.case.dim * inputs.FLOAT
        return Traffic(
            gather=self.case.batch * row,
            line=inputs.dense_line(row),
            table=self.case.rows * row,
            stream=3 * self.case.rows * row + self.case.batch * (8 + row),
        )

    def expected(self, number: int) -> Tensor:
        values, thresholds = (each[self.ids[number]].double() for each in (self.values, self.thresholds))
        return (values.sign() * (values.abs() - thresholds.sigmoid()).relu()).float()


class SoftThreshold:
    name = "soft_threshold"
    unit = "rows"
    shown = ("rows", "dim", "batch", "ids", "cold")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        if quick:
            return [Case(rows=2000, dim=64, batch=300)]
        rows = 10_000_000 if device == "cuda" else 1_000_000
        return [Case(rows=rows, dim=64, batch=16_384)]

    def problem(self, case: Case, providers: int) -> SoftThresholdProblem:
        return SoftThresholdProblem(case, providers)

    def check(self, problem: SoftThresholdProblem, trial: Trial) -> str | None:
        for number in (0, problem.n_sets - 1):
            answer, want = trial.answer(number).cpu(), problem.expected(number).cpu()
            if not torch.allclose(answer, want, rtol=1e-4, atol=1e-6):
                return f"differs from the formula by up to {float((answer - want).abs().max()):.2g}"
        return None


register_op(SoftThreshold())
