"""Matrix factorisation: the score of a user and an item is the dot product of their rows."""

from __future__ import annotations

from torch import Tensor

from recsparse import ops
from recsparse.models.base import Model, Triples
from recsparse.optim import TableOptimizer
from recsparse.table import PackedTable


class MatrixFactorisation(Model):
    """BPR-trained matrix factorisation; each mini-batch moves the rows that it touches."""

    def train_(self, table: PackedTable, optimizer: TableOptimizer, triples: Triples, batch_size: int) -> Tensor:
        return ops.bpr_step_(table, optimizer, *triples, item_offset=self.n_users, batch_size=batch_size, l2=self.l2)

    def grow_scores(self, table: PackedTable, triples: Triples, limit: int) -> tuple[Tensor, Tensor]:
        return ops.bpr_grow_scores(table, *triples, item_offset=self.n_users, limit=limit)

    def for_ranking(self, table: PackedTable) -> PackedTable:
        return table
