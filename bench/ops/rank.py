"""Full-catalogue top-20 of every user: `rank` against a matrix product and top-k, and against search libraries.

Nothing is left out of the lists: not every peer can exclude what a user has seen.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from recsparse.table import PackedTable

from .. import inputs, memory
from ..registry import Case, Trial, register_op

K = 20
CHECKED = 256
TOLERANCE = 1e-5
"""Of a score, relative to the norms of its rows: peers add in other orders."""


class RankProblem:
    """``rows`` items and ``batch`` users of normal rows, standard deviation 0.1; with a density below 1 only so many of
    the numbers are there, and ours ranks a packed table."""

    n_sets = 4

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        count = case.batch + case.rows
        dense = memory.empty(count, case.dim)
        source = inputs.generator(3)
        dense.normal_(0.0, 0.1, generator=source)
        self.mask = torch.rand(count, case.dim, generator=source) < case.density
        dense.mul_(self.mask)
        self.joint = dense.to(case.value_type).float()
        self.users, self.items = self.joint[: case.batch], self.joint[case.batch :]

    @cached_property
    def table(self) -> PackedTable:
        return inputs.pack_table(self.joint, self.mask, self.case.kind, self.case.value_type)

    @cached_property
    def best(self) -> Tensor:
        """float64 [CHECKED, K]: the best scores of the first users."""
        return (self.users[:CHECKED].double() @ self.items.double().T).topk(min(K, len(self.items))).values


class RankOp:
    name = "rank"
    unit = "users"
    shown = ("rows", "dim", "batch", "density", "dtype", "kind")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        if quick:
            return [Case(rows=500, dim=16, batch=60, kind="full"), Case(rows=500, dim=16, batch=60, density=0.2)]
        yelp = Case(rows=38_048, dim=64, batch=31_668, kind="full")
        return [yelp, Case(rows=38_048, dim=64, batch=31_668, density=0.1)]

    def problem(self, case: Case, providers: int) -> RankProblem:
        return RankProblem(case, providers)

    def check(self, problem: RankProblem, trial: Trial) -> str | None:
        """The lists of the first users hold distinct items whose exact scores are the best ones."""
        lists = torch.as_tensor(trial.answer(0)).long()[:CHECKED]
        if lists.shape != problem.best.shape:
            return f"lists of the first users have shape {tuple(lists.shape)}, expected {tuple(problem.best.shape)}"
        if lists.min() < 0 or lists.max() >= len(problem.items):
            return "an item is out of range"
        if bool((lists.sort(dim=1).values.diff(dim=1) == 0).any()):
            return "a list holds an item twice"
        users = problem.users[:CHECKED].double()
        scores = (problem.items[lists].double() @ users[:, :, None])[:, :, 0]
        size = users.norm(dim=1, keepdim=True) * problem.items.norm(dim=1).max()
        wrong = (scores - problem.best).abs() > TOLERANCE * size
        if bool(wrong.any()):
            return f"{int(wrong.any(dim=1).sum())} of {len(lists)} lists are not the best items in order"
        return None


register_op(RankOp())
