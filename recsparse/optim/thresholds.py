"""Adam of a dense table that is read through soft thresholds which learn with it: the search of PEP.

What drives a threshold s is its penalty: at s = -15 the loss gives it no gradient worth speaking of, and Adam, which
divides by the size of the gradient, turns the pull weight_decay * s into steps of about lr towards 0, whatever the
data. So the decay is *coupled* (added to the gradient, before the moments): a decoupled one would leave s where it is.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from recsparse import ops
from recsparse.optim.state import Adam
from recsparse.table import PackedTable

Granularity = Literal["global", "dim", "row", "element"]


def threshold_shape(granularity: Granularity, rows: int, dim: int) -> tuple[int, int]:
    """Shape of the thresholds of a table."""
    return rows if granularity in ("row", "element") else 1, dim if granularity in ("dim", "element") else 1


class ThresholdedAdam(Adam):
    """Adam on the weights, and on thresholds of their own group; is `Rows` for `Model.train_rows_`.

    Args:
        table: of kind `full` and float32.
        granularity: what shares a threshold: everything, a column, a row, or nothing.
        start: all thresholds, before the sigmoid.
        threshold_lr: step size of the thresholds. All of them move in every step.
        threshold_decay: their L2 penalty, coupled.
        options: of `Adam`, for the weights.

    Attributes:
        thresholds: a table of kind `full`, of the shape of the granularity.
    """

    def __init__(
        self,
        table: PackedTable,
        *,
        granularity: Granularity,
        start: float,
        threshold_lr: float,
        threshold_decay: float,
        **options: Any,
    ) -> None:
        if table.kind != "full" or table.dtype != torch.float32:
            raise ValueError(f"thresholds need a full float32 table, this one is {table.kind} and {table.dtype}")
        super().__init__(table, **options)
        rows, dim = threshold_shape(granularity, table.rows, table.dim)
        self.thresholds = PackedTable(
            rows,
            dim,
            "full",
            table.index.new_empty(0),
            table.cols.new_empty(0),
            table.values.new_full((rows * dim,), start),
            table.backend,
        )
        self.of_thresholds = Adam(self.thresholds, lr=threshold_lr, weight_decay=threshold_decay, lazy=False)

    @property
    def dense(self) -> tuple[Tensor, Tensor]:
        """Weights [rows, dim] and thresholds, in their shapes (views)."""
        return (
            self.table.values.view(self.table.rows, self.table.dim),
            self.thresholds.values.view(self.thresholds.rows, self.thresholds.dim),
        )

    def read(self, ids: Tensor | None) -> Tensor:
        return ops.soft_threshold(*self.dense, ids, backend=self.table.backend)

    def update(self, ids: Tensor | None, grad: Tensor) -> None:
        of_values, of_thresholds = ops.soft_threshold_backward(grad, *self.dense, ids, backend=self.table.backend)
        if ids is None:
            self.update_dense(of_values)
        else:
            self.update_rows(ids, of_values)
        if ids is None or self.thresholds.rows == 1:
            self.of_thresholds.update_dense(of_thresholds)
        else:
            self.of_thresholds.update_rows(ids, of_thresholds)

    def nbytes(self) -> int:
        """Of the moments, and of the thresholds with theirs: they exist for training alone."""
        return super().nbytes() + self.thresholds.nbytes()["values"] + self.of_thresholds.nbytes()

    def state_dict(self) -> dict[str, Tensor]:
        own = {f"threshold_{name}": tensor for name, tensor in self.of_thresholds.state_dict().items()}
        return super().state_dict() | {"thresholds": self.thresholds.values} | own

    def check_invariants(self) -> None:
        super().check_invariants()
        self.thresholds.check_invariants()
        self.of_thresholds.check_invariants()
