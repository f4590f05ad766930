"""Random table sizes under a strict budget: the action sampler of BET (WSDM 2024).

An *action* gives every user and every item a size, the number of columns that its row keeps. Of the budget B (weights)
the users get a share w ~ U(0, 1), clipped so that both groups can be served. For each group one of four distributions
is drawn, and its parameter b:

    power law               density b x^(b - 1) on (0, 1)   b ~ U(0, 20)
    truncated normal        N(0, 1) cut to [0, b]           b ~ U(0, 20)
    truncated exponential   Exp(1) cut to [0, b]            b ~ U(0, 5)
    log-normal              exp(b N(0, 1))                  b ~ U(0, 0.5)

A value a row, sorted, says which part of the group's budget the row gets: the largest goes to the most frequent one.

The rounding differs from the paper, whose floors waste a part of the budget and give rows of size 0, and from its code,
which raises those to 1, so that one action in twenty exceeds the budget, and draws again while a size exceeds the
largest, which need not end. Here each row has 1 reserved; the rest is divided in proportion and rounded down; what
exceeds the largest size goes to the others in proportion; and what rounding left goes, one each, to the largest
fractional parts (ties: to the more frequent row). Sizes sum to B exactly, lie in 1..largest and do not increase along
the ranks, for any budget that can be met.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Sizes = NDArray[np.int16]


class Action(NamedTuple):
    """Sizes by rank, the most frequent user and item first; int16, not increasing."""

    users: Sizes
    items: Sizes


def _normal_from(uniform: Floats) -> Floats:
    """Values of N(0, 1) at the probabilities (1 + `uniform`) / 2, for `uniform` in (-1, 1)."""
    found: Floats = math.sqrt(2) * torch.erfinv(torch.from_numpy(uniform)).numpy()
    return found


def _power_law(uniform: Floats, b: float) -> Floats:
    found: Floats = uniform ** (1 / max(b, 1e-6))
    return found


def _truncated_normal(uniform: Floats, b: float) -> Floats:
    return _normal_from(uniform * math.erf(b / math.sqrt(2)))


def _truncated_exponential(uniform: Floats, b: float) -> Floats:
    found: Floats = -np.log1p(uniform * math.expm1(-b))
    return found


def _log_normal(uniform: Floats, b: float) -> Floats:
    found: Floats = np.exp(b * _normal_from(2 * uniform - 1))
    return found


DISTRIBUTIONS: tuple[tuple[Callable[[Floats, float], Floats], float], ...] = (
    (_power_law, 20.0),
    (_truncated_normal, 20.0),
    (_truncated_exponential, 5.0),
    (_log_normal, 0.5),
)
"""How each is drawn from numbers uniform in [0, 1) and its parameter, and the largest parameter."""


@dataclass(frozen=True)
class ActionSampler:
    """Draws actions. An action is a function of (`seed`, iteration, number): three integers bring it back.

    Attributes:
        users, items: rows of each group, at least 1.
        largest: the largest size, at most 256.
        budget: weights in all, from users + items to (users + items) * largest.
        seed: 0 or above.

    Raises:
        ValueError: a budget that cannot be met.
    """

    users: int
    items: int
    largest: int
    budget: int
    seed: int

    def __post_init__(self) -> None:
        rows = self.users + self.items
        if not rows <= self.budget <= rows * self.largest:
            raise ValueError(f"budget is {self.budget}, expected {rows}..{rows * self.largest} for {rows} rows")

    def draw(self, iteration: int, number: int) -> Action:
        """Action `number` of `iteration`, both 0 or above."""
        source = np.random.default_rng([self.seed, iteration, number])
        share = round(source.random() * self.budget)
        least = max(self.users, self.budget - self.items * self.largest)
        most = min(self.users * self.largest, self.budget - self.items)
        of_users = min(max(share, least), most)
        return Action(
            self._sizes(source, self.users, of_users), self._sizes(source, self.items, self.budget - of_users)
        )

    def _sizes(self, source: np.random.Generator, rows: int, budget: int) -> Sizes:
        draw, widest = DISTRIBUTIONS[source.integers(len(DISTRIBUTIONS))]
        parameter = source.random() * widest
        values = draw(source.random(rows), parameter)
        return divide(np.sort(values)[::-1], budget, self.largest)


def divide(weights: Floats, budget: int, largest: int) -> Sizes:
    """`budget` cut into sizes of 1..`largest` in proportion to `weights`; see the module's description.

    Args:
        weights: not negative and not increasing.
        budget: from len(weights) to len(weights) * largest.
    """
    rows, most = len(weights), largest - 1
    left = budget - rows
    # A weight of 0 would leave nobody to give to once the others are full.
    weights = np.maximum(weights / max(weights[0], 1e-300), 1e-300)
    behind = np.cumsum(weights[::-1])[::-1]  # the sum from each rank on
    full = _capped(weights, behind, left, most)
    left -= full * most
    exact = weights[full:] / behind[full] * left if full < rows else weights[:0]
    extra = np.minimum(np.floor(exact), most)
    sizes = np.full(rows, 1 + most, np.int16)
    sizes[full:] = 1 + extra
    left -= int(extra.sum())
    if left > 0:
        parts = np.where(extra < most, exact - extra, -1.0)
        cut = np.partition(parts, -left)[-left]
        sizes[full:] += parts > cut
        ties = np.flatnonzero(parts == cut)
        sizes[full + ties[: left - int((parts > cut).sum())]] += 1
    return sizes


def _capped(weights: Floats, behind: Floats, left: int, most: int) -> int:
    """How many ranks get `most`: the first that, with all before it at `most`, gets no more in proportion ends them."""
    remaining = left - most * np.arange(len(weights), dtype=np.float64)
    fits = weights * remaining <= most * behind
    return int(np.argmax(fits)) if fits.any() else len(weights)
