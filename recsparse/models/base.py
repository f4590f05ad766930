"""What a recommender model is to the trainer and to policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from recsparse.optim import TableOptimizer
from recsparse.table import PackedTable


class Triples(NamedTuple):
    """Training examples; three int64 tensors of one length."""

    users: Tensor
    positives: Tensor
    negatives: Tensor

    def __len__(self) -> int:  # the number of examples, not of fields
        return self.users.numel()

    def last(self, count: int) -> Triples:
        """The last `count` examples (a view)."""
        return Triples(self.users[-count:], self.positives[-count:], self.negatives[-count:])

    def batches(self, size: int) -> Iterator[Triples]:
        """Consecutive mini-batches of `size`, the last one may be shorter (views)."""
        for begin in range(0, len(self), size):
            yield Triples(*(part[begin : begin + size] for part in self))


class Rows(Protocol):
    """A table whose rows are not read as they are stored: `Model.train_rows_` trains it through dense rows."""

    def read(self, ids: Tensor | None) -> Tensor:
        """Rows `ids` (int64 [n]; None: all of them), float32 [n, dim], a tensor of its own."""

    def update(self, ids: Tensor | None, grad: Tensor) -> None:
        """One step from the gradient of the rows that `read(ids)` gave; those that occur more than once add up."""


class Model(ABC):
    """A recommender over one joint table: users are rows 0..U-1, items rows U..U+I-1. It owns no weights.

    Args:
        n_users: number of users U.
        n_items: number of items I.
        l2: penalty lambda; the loss of a mini-batch of B triples is
            mean softplus(s_neg - s_pos) + lambda / 2 (|e_u|^2 + |e_i|^2 + |e_j|^2) / B (BPR, arXiv 1205.2618), e being
            rows of the table.
    """

    def __init__(self, n_users: int, n_items: int, l2: float) -> None:
        self.n_users = n_users
        self.n_items = n_items
        self.l2 = l2

    @property
    def rows(self) -> int:
        return self.n_users + self.n_items

    @abstractmethod
    def train_(self, table: PackedTable, optimizer: TableOptimizer, triples: Triples, batch_size: int) -> Tensor:
        """Consecutive mini-batch steps on `triples`; returns the mean loss of each, float32 [n_batches]."""

    @abstractmethod
    def train_rows_(self, rows: Rows, triples: Triples, batch_size: int) -> Tensor:
        """As `train_`, through the dense rows of `rows`: for what no fused kernel trains."""

    @abstractmethod
    def grow_scores(self, table: PackedTable, triples: Triples, limit: int) -> tuple[Tensor, Tensor]:
        """|dL/dw| of slots that are not kept: (keys int64 ascending, scores float32), at most `limit`, the largest."""

    @abstractmethod
    def for_ranking(self, table: PackedTable) -> PackedTable | tuple[Tensor, Tensor]:
        """What `recsparse.evaluate.evaluate` ranks by: the table, or (user rows, item rows), float32."""


def bpr_gradients(rows: Tensor, weight: Tensor | float) -> tuple[Tensor, Tensor]:
    """Mean loss of a mini-batch, and its gradient without the penalty.

    Args:
        rows: float32 [3, B, dim]: of users, positives and negatives.
        weight: of each triple in the mean, 1 / B.

    Returns:
        (float32 scalar, float32 [3, B, dim])
    """
    user, positive, negative = rows
    gap = negative - positive
    difference = (user * gap).sum(1)
    pull = (torch.sigmoid(difference) * weight)[:, None]
    towards = user * pull
    return mean_in_order(torch.nn.functional.softplus(difference)), torch.stack([gap * pull, -towards, towards])


def mean_in_order(losses: Tensor) -> Tensor:
    """The mean of a vector, summed in an order that the number of threads does not change."""
    count, width = losses.numel(), 64
    while losses.numel() > 1:
        pieces = -(-losses.numel() // width)
        losses = torch.nn.functional.pad(losses, (0, pieces * width - losses.numel())).view(pieces, width).sum(1)
    return losses[0] / count
