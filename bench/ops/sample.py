"""Training triples from user lists: ``ops.sample`` against rejection samplers in numpy and in a Python loop."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from .. import inputs
from ..registry import Case, Trial, register_op

ITEMS_PER_USER_ROW = 40_981 / 29_858  # Gowalla: items for each user, and mean length of a user's list
MEAN_DEGREE = 27


class SampleProblem:
    """Item lists of ``rows`` users: lengths and popularity follow power laws, no item comes twice in a list."""

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.n_sets = 24 * providers
        self.n_users = case.rows
        self.n_items = max(4, round(case.rows * ITEMS_PER_USER_ROW))
        source = inputs.generator(5)
        most = min(1000, self.n_items // 2)
        ranks = inputs.draw_ids(case.rows, most, "zipf:1.3", source)
        wanted = (ranks + 1).clamp(max=most)
        wanted = (wanted * (MEAN_DEGREE / wanted.double().mean())).long().clamp(1, most)
        users = torch.repeat_interleave(torch.arange(case.rows), wanted)
        items = inputs.draw_ids(len(users), self.n_items, "zipf:0.8", source)
        self.keys = (users * self.n_items + items).unique()
        """int64 [nnz], user * n_items + item, ascending."""
        self.items = (self.keys % self.n_items).to(torch.int32)
        counts = torch.bincount(self.keys // self.n_items, minlength=case.rows)
        self.indptr = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])

    @cached_property
    def bitmap(self) -> np.ndarray:
        """uint8, one bit for every pair of user and item."""
        keys = self.keys.numpy()
        bits = np.zeros(self.n_users * self.n_items // 8 + 1, dtype=np.uint8)
        np.bitwise_or.at(bits, keys >> 3, (1 << (keys & 7)).astype(np.uint8))
        return bits


class Sample:
    name = "sample"
    unit = "triples"
    shown = ("rows", "batch")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        if quick:
            return [Case(rows=300, batch=500)]
        return [Case(rows=29_858, batch=131_072 if device == "cpu" else 4 << 20)]

    def problem(self, case: Case, providers: int) -> SampleProblem:
        return SampleProblem(case, providers)

    def check(self, problem: SampleProblem, trial: Trial) -> str | None:
        """Positives are in the user's list, negatives are not, and users, positives and negatives spread as they should
        (their means lie within six standard errors)."""
        users, pos, neg = (torch.as_tensor(part) for part in trial.answer(0))
        if not len(users) == len(pos) == len(neg) == problem.case.batch:
            return f"{len(users)} triples, expected {problem.case.batch}"
        if users.min() < 0 or users.max() >= problem.n_users or neg.min() < 0 or neg.max() >= problem.n_items:
            return "an id is out of range"
        positive = torch.isin(users * problem.n_items + pos, problem.keys)
        negative = torch.isin(users * problem.n_items + neg, problem.keys)
        if not bool(positive.all()):
            return f"{int((~positive).sum())} positives are not in the user's list"
        if bool(negative.any()):
            return f"{int(negative.sum())} negatives are in the user's list"
        place = torch.searchsorted(problem.keys, users * problem.n_items + pos) - problem.indptr[users]
        degree = (problem.indptr[1:] - problem.indptr[:-1])[users]
        spread = {
            "users": (users + 0.5) / problem.n_users,
            "positives": (place + 0.5) / degree,
            "negatives": (
                neg - torch.searchsorted(problem.keys, users * problem.n_items + neg) + problem.indptr[users] + 0.5
            )
            / (problem.n_items - degree),
        }
        for name, share in spread.items():
            # Each is uniform over n equal parts of (0, 1): mean 1/2, variance at most 1/12.
            if abs(float(share.double().mean()) - 0.5) > 6 / (12 * len(users)) ** 0.5:
                return f"{name} are not uniform: mean {float(share.double().mean()):.4f} of the range"
        return None


register_op(Sample())
