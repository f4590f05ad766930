"""The k-th largest magnitude of a table: ``ops.select`` against partial sorts. |v| is computed inside the timing."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from .. import inputs, memory
from ..registry import Case, Trial, register_op


class SelectProblem:
    """``rows`` values, of which the share ``density`` is kept; several arrays so that none is found in the cache."""

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.n_sets = 3 if case.cold else 1
        self.k = max(1, case.kept)
        source = inputs.generator(3)
        self.values = [memory.empty(case.slots).normal_(generator=source) for _ in range(self.n_sets)]

    @cached_property
    def buffer(self) -> Tensor:
        """Room for |v|, shared by the peers that can write there."""
        return memory.empty(self.case.slots).zero_()

    @cached_property
    def magnitudes(self) -> list[Tensor]:
        return [memory.empty(self.case.slots).copy_(values.abs()) for values in self.values]


class Select:
    name = "select"
    unit = "values"
    shown = ("rows", "density", "cold")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        if device == "cuda" and not quick:
            return [Case(rows=rows, density=0.1) for rows in (1 << 28, 4_000_000_000)]
        return [Case(rows=20_000 if quick else 64 << 20, density=0.1)]

    def problem(self, case: Case, providers: int) -> SelectProblem:
        return SelectProblem(case, providers)

    def check(self, problem: SelectProblem, trial: Trial) -> str | None:
        """The threshold must be a value of which fewer than k are larger and at least k are as large; ours also has
        to say how many equal ones are kept."""
        for number in range(problem.n_sets):
            threshold, ties = trial.answer(number)
            magnitude = problem.values[number].abs()
            larger = int((magnitude > threshold).sum())
            equal = int((magnitude == threshold).sum())
            if not larger < problem.k <= larger + equal:
                return f"threshold {threshold!r} has {larger} larger and {equal} equal values, k is {problem.k}"
            if ties is not None and ties != problem.k - larger:
                return f"{ties} ties kept, expected {problem.k - larger}"
        return None


register_op(Select())
