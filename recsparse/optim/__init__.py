"""Optimisers of packed tables.

- `Adam`, `Adagrad`, `RowWiseAdagrad`, `SGD`: the state of one table, for `bpr_step_`, the trainer and fused modules.
- `PackedAdam`, `PackedAdagrad`, `PackedRowWiseAdagrad`, `PackedSGD`: `torch.optim.Optimizer` over parameters that are
  the values of a table.
"""

from __future__ import annotations

from recsparse.optim.packed import PackedAdagrad, PackedAdam, PackedRowWiseAdagrad, PackedSGD
from recsparse.optim.state import OPTIMIZERS, SGD, Adagrad, Adam, RowWiseAdagrad, TableOptimizer

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adagrad",
    "Adam",
    "PackedAdagrad",
    "PackedAdam",
    "PackedRowWiseAdagrad",
    "PackedSGD",
    "RowWiseAdagrad",
    "TableOptimizer",
]
