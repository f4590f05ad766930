"""The least that `SparseEmbedding(fused=True)` asks of an optimiser, over the ops."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import ops
from recsparse.table import PackedTable


class RowSgd:
    """SGD: no state but the step."""

    def __init__(self, table: PackedTable, lr: float = 1e-3) -> None:
        self.table, self.lr = table, lr
        self.step = torch.zeros(1, dtype=torch.int64)

    def update_rows(self, ids: Tensor, grad: Tensor) -> None:
        ops.sgd_(self.table, self.step, grad, ids, lr=self.lr, lazy=True)

    def state_dict(self) -> dict[str, Tensor]:
        return {"step": self.step}


class RowAdam(RowSgd):
    """Lazy Adam."""

    def __init__(self, table: PackedTable, lr: float = 1e-3) -> None:
        super().__init__(table, lr)
        self.moments = torch.zeros(2 * table.capacity)

    def update_rows(self, ids: Tensor, grad: Tensor) -> None:
        ops.adam_(self.table, self.moments, self.step, grad, ids, lr=self.lr, lazy=True)

    def state_dict(self) -> dict[str, Tensor]:
        return {"moments": self.moments, "step": self.step}
