"""Matrix factorisation: the score of a user and an item is the dot product of their rows."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import ops
from recsparse.models.base import Model, Rows, Triples, bpr_gradients
from recsparse.optim import Adam, TableOptimizer
from recsparse.table import PackedTable


class MatrixFactorisation(Model):
    """BPR-trained matrix factorisation; each mini-batch moves the rows that it touches, or all where the optimiser is
    not lazy."""

    def train_(self, table: PackedTable, optimizer: TableOptimizer, triples: Triples, batch_size: int) -> Tensor:
        # Of the others a gradient of zero moves nothing: lazy or not is the same.
        if isinstance(optimizer, Adam) and not optimizer.lazy:
            return self.train_rows_(TableRows(table, optimizer), triples, batch_size)
        return ops.bpr_step_(table, optimizer, *triples, item_offset=self.n_users, batch_size=batch_size, l2=self.l2)

    def train_rows_(self, rows: Rows, triples: Triples, batch_size: int) -> Tensor:
        losses = []
        for batch in triples.batches(batch_size):
            ids = torch.cat([batch.users, batch.positives + self.n_users, batch.negatives + self.n_users])
            dense = rows.read(ids).view(3, len(batch), -1)
            loss, grad = bpr_gradients(dense, 1 / len(batch))
            grad.add_(dense, alpha=self.l2 / len(batch))
            rows.update(ids, grad.view(len(ids), -1))
            losses.append(loss)
        return torch.stack(losses) if losses else torch.empty(0)

    def grow_scores(self, table: PackedTable, triples: Triples, limit: int) -> tuple[Tensor, Tensor]:
        return ops.bpr_grow_scores(table, *triples, item_offset=self.n_users, limit=limit)

    def for_ranking(self, table: PackedTable) -> PackedTable:
        return table


class TableRows:
    """The rows of a packed table and its optimiser, as `Rows`."""

    def __init__(self, table: PackedTable, optimizer: TableOptimizer) -> None:
        self.table, self.optimizer = table, optimizer

    def read(self, ids: Tensor | None) -> Tensor:
        return (self.table.to_dense() if ids is None else self.table.lookup(ids)).float()

    def update(self, ids: Tensor | None, grad: Tensor) -> None:
        if ids is None:
            self.optimizer.update_dense(grad)
        else:
            self.optimizer.update_rows(ids, grad)
