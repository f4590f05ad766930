"""Sums of rows: ``ops.lookup_bag`` against the bags of the dense table."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from recsparse.table import PackedTable

from .. import inputs
from ..registry import Case, Trial, register_op


class LookupBagProblem:
    """One table, dense and packed, and id sets of ``batch`` bags with ``bag`` ids each."""

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.dense = inputs.masked_dense(case)
        count = case.batch * case.bag
        self.n_sets = inputs.count_sets(case, providers, count * 8, count * case.dim * 4)
        source = inputs.generator(2)
        self.ids = [inputs.draw_ids(count, case.rows, case.ids, source) for _ in range(self.n_sets)]
        self.offsets = torch.arange(case.batch + 1) * case.bag

    @cached_property
    def table(self) -> PackedTable:
        return inputs.pack_table(self.dense, self.dense != 0, self.case.kind)

    @property
    def stream_bytes(self) -> int:
        """Bytes of ids and offsets read and of the dense result written by a call."""
        return self.case.batch * (8 * (self.case.bag + 1) + self.case.dim * 4)

    def expected(self, number: int) -> Tensor:
        """In float64."""
        rows = self.dense.index_select(0, self.ids[number]).double()
        return rows.view(self.case.batch, self.case.bag, self.case.dim).sum(1)


class LookupBag:
    name = "lookup_bag"
    unit = "rows"
    shown = ("rows", "dim", "density", "kind", "batch", "bag", "ids", "cold")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        if quick:
            return [Case(rows=2000, dim=64, density=0.1, batch=50, bag=bag) for bag in (1, 6)]
        if device == "cuda":
            return [Case(rows=20_000_000, dim=64, density=0.1, batch=65_536, bag=bag) for bag in (1, 10, 50)]
        sizes = ((16_384, 1), (16_384, 10), (4_096, 50))
        return [Case(rows=8_000_000, dim=64, density=0.1, batch=batch, bag=bag) for batch, bag in sizes]

    def problem(self, case: Case, providers: int) -> LookupBagProblem:
        return LookupBagProblem(case, providers)

    def check(self, problem: LookupBagProblem, trial: Trial) -> str | None:
        for number in (0, problem.n_sets - 1):
            got, want = trial.answer(number), problem.expected(number)
            if got.shape != want.shape:
                return f"the result has shape {tuple(got.shape)}, expected {tuple(want.shape)}"
            error = float((got.double() - want).abs().max())
            if not error <= 1e-5 * problem.case.bag:
                return f"a sum differs by {error:.2e}"
        return None


register_op(LookupBag())
