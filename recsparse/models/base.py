"""What a recommender model is to the trainer and to policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

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
    def grow_scores(self, table: PackedTable, triples: Triples, limit: int) -> tuple[Tensor, Tensor]:
        """|dL/dw| of slots that are not kept: (keys int64 ascending, scores float32), at most `limit`, the largest."""

    @abstractmethod
    def for_ranking(self, table: PackedTable) -> PackedTable | tuple[Tensor, Tensor]:
        """What `recsparse.evaluate.evaluate` ranks by: the table, or (user rows, item rows), float32."""
