"""One whole DSL update: find the r smallest weights, drop them, grow the r best candidates, and rebuild the table.

Ours works on the packed table and its moments. The peers do the same on dense weights, a bool mask, dense moments and a
dense |gradient|, which is zero outside the rows of the last batch. Bringing back the state before a call is not timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsparse.table import PackedTable

from .. import inputs, memory
from ..registry import Case, Trial, register_op

RATIO = 0.05  # share of the kept weights that an update replaces
CANDIDATES = 1.1  # candidates for growth, relative to the weights replaced
MAX_DISTINCT = 1 << 24  # fp32 holds no more distinct multiples of one step


@dataclass
class DenseTable:
    w: Tensor
    mask: Tensor
    m: Tensor
    v: Tensor

    @classmethod
    def like(cls, other: DenseTable) -> DenseTable:
        return cls(*(memory.empty(*part.shape, dtype=part.dtype) for part in other.parts()))

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.w, self.mask, self.m, self.v

    def copy_(self, other: DenseTable) -> None:
        for mine, theirs in zip(self.parts(), other.parts(), strict=True):
            mine.copy_(theirs)


def _distinct(count: int, source: torch.Generator) -> Tensor:
    """Positive float32 numbers below 1 in random order, all different while fp32 can tell them apart."""
    return (torch.randperm(count, generator=source) % MAX_DISTINCT + 1) / min(count + 1, MAX_DISTINCT)


class PruneProblem:
    """A masked table with moments, and candidates. Magnitudes are distinct, so that ties cannot part the providers."""

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.n_sets = 3
        source = inputs.generator(4)
        w = inputs.masked_dense(case)
        mask = w != 0
        nnz = int(mask.sum())
        w[mask] = w[mask].sign() * _distinct(nnz, source)
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        m[mask] = torch.randn(nnz, generator=source)
        v[mask] = torch.rand(nnz, generator=source)
        self.saved = DenseTable(w, mask, m, v)
        free = case.slots - nnz
        self.replaced = max(1, min(round(RATIO * nnz), int(free / CANDIDATES)))
        self.candidates = [self._draw_candidates(free, source) for _ in range(self.n_sets)]

    def _draw_candidates(self, free: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ascending keys of slots that are not kept, and their scores."""
        count = min(free, round(CANDIDATES * self.replaced))
        slots = (~self.saved.mask).view(-1).nonzero()[:, 0]
        keys = slots[torch.randperm(free, generator=source)[:count]].sort().values
        return keys, _distinct(count, source)

    @cached_property
    def dense(self) -> DenseTable:
        """The state that the dense peers change; all of them use the same."""
        return DenseTable.like(self.saved)

    @cached_property
    def scores(self) -> Tensor:
        """Dense |gradient| of the set that was restored last."""
        return memory.empty(*self.saved.w.shape)

    def restore_dense(self, number: int) -> None:
        keys, scores = self.candidates[number]
        self.dense.copy_(self.saved)
        self.scores.zero_().view(-1)[keys] = scores

    @cached_property
    def table(self) -> PackedTable:
        return inputs.pack_table(self.saved.w, self.saved.mask, self.case.kind)

    @cached_property
    def moments(self) -> Tensor:
        """Moments of the kept weights in the order of Adam: m and v of a weight side by side."""
        packed = memory.empty(2 * self.table.capacity).zero_()
        packed[0 : 2 * self.table.nnz : 2] = self.saved.m[self.saved.mask]
        packed[1 : 2 * self.table.nnz : 2] = self.saved.v[self.saved.mask]
        return packed

    def unpacked(self) -> DenseTable:
        """The packed table and its moments as they are now, dense."""
        mask = self.table.mask()
        m, v = torch.zeros_like(self.saved.m), torch.zeros_like(self.saved.v)
        m[mask], v[mask] = self.moments[: 2 * self.table.nnz].view(-1, 2).unbind(1)
        return DenseTable(self.table.to_dense(), mask, m, v)

    def expected(self, number: int) -> DenseTable:
        keys, scores = self.candidates[number]
        w, mask, m, v = (part.clone() for part in self.saved.parts())
        magnitude = torch.where(mask, w.abs(), torch.inf).view(-1)
        dropped = magnitude.topk(self.replaced, largest=False).indices
        grown = keys[scores.topk(self.replaced).indices]
        for part in (w, m, v):
            part.view(-1)[dropped] = 0
        mask.view(-1)[dropped] = False
        mask.view(-1)[grown] = True
        return DenseTable(w, mask, m, v)


class PruneRegrow:
    name = "prune_regrow"
    unit = "slots"
    shown = ("rows", "dim", "density", "kind")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        return [Case(rows=1500 if quick else 10_000_000 if device == "cuda" else 1_000_000, dim=64, density=0.1)]

    def problem(self, case: Case, providers: int) -> PruneProblem:
        return PruneProblem(case, providers)

    def check(self, problem: PruneProblem, trial: Trial) -> str | None:
        for number in (0, problem.n_sets - 1):
            wrong = inputs.differs(trial.answer(number).parts(), problem.expected(number).parts())
            if wrong is not None:
                return wrong
        return None


register_op(PruneRegrow())
