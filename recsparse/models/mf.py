"""Matrix factorisation: the score of a user and an item is the dot product of their rows."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from recsparse import ops
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


class MatrixFactorisation:
    """BPR-trained matrix factorisation over one joint table: users are rows 0..U-1, items rows U..U+I-1.

    Args:
        n_users: number of users U.
        n_items: number of items I.
        l2: penalty lambda; the loss of a mini-batch of B triples is
            mean softplus(s_neg - s_pos) + lambda / 2 (|e_u|^2 + |e_i|^2 + |e_j|^2) / B (BPR, arXiv 1205.2618).
    """

    def __init__(self, n_users: int, n_items: int, l2: float) -> None:
        self.n_users = n_users
        self.n_items = n_items
        self.l2 = l2

    @property
    def rows(self) -> int:
        return self.n_users + self.n_items

    def train_(self, table: PackedTable, optimizer: TableOptimizer, triples: Triples, batch_size: int) -> Tensor:
        """Consecutive mini-batch steps on `triples`; returns the mean loss of each, float32 [n_batches]."""
        return ops.bpr_step_(table, optimizer, *triples, item_offset=self.n_users, batch_size=batch_size, l2=self.l2)

    def grow_scores(self, table: PackedTable, triples: Triples, limit: int) -> tuple[Tensor, Tensor]:
        """|dL/dw| of slots that are not kept: (keys int64 ascending, scores float32), at most `limit`, the largest."""
        return ops.bpr_grow_scores(table, *triples, item_offset=self.n_users, limit=limit)
