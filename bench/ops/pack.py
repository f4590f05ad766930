"""Dense and mask to packed, and back: ``ops.pack`` and ``ops.unpack`` against torch's masked and sparse forms."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from recsparse.table import PackedTable

from .. import inputs
from ..registry import Case, Trial, register_op


class PackProblem:
    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.n_sets = 1
        self.dense = inputs.masked_dense(case)
        self.mask = self.dense != 0
        self.values = self.dense[self.mask]

    @cached_property
    def table(self) -> PackedTable:
        return inputs.pack_table(self.dense, self.mask, self.case.kind)

    @cached_property
    def csr(self) -> Tensor:
        return self.dense.to_sparse_csr()


def _cases(quick: bool, device: str) -> list[Case]:
    return [Case(rows=1000 if quick else 10_000_000 if device == "cuda" else 1_000_000, dim=64, density=0.1)]


class Pack:
    """An answer is (kept values, dense table the packed form stands for or None)."""

    name = "pack"
    unit = "slots"
    shown = ("rows", "dim", "density", "kind")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        return _cases(quick, device)

    def problem(self, case: Case, providers: int) -> PackProblem:
        return PackProblem(case, providers)

    def check(self, problem: PackProblem, trial: Trial) -> str | None:
        return inputs.differs(trial.answer(0), (problem.values, problem.dense))


class Unpack(Pack):
    """An answer is (dense table, mask or None)."""

    name = "unpack"

    def check(self, problem: PackProblem, trial: Trial) -> str | None:
        return inputs.differs(trial.answer(0), (problem.dense, problem.mask))


register_op(Pack())
register_op(Unpack())
