"""Post-training quantisation: the dense table, trained as ever, then stored in fewer bits.

Their bytes are those of the stored form, a half and about a quarter of dense fp32; what training takes is what dense
takes. They show what a budget buys without any sparsity.
"""

from __future__ import annotations

from abc import abstractmethod

import torch

from recsparse.errors import UserError
from recsparse.int8 import Int8Table
from recsparse.optim import SGD
from recsparse.policies.base import Context, Stage
from recsparse.policies.dense import Dense
from recsparse.table import PackedTable


class StoredStage(Stage):
    """A stage that trains nothing: it evaluates, tests and keeps a table as it is stored."""

    def __init__(self, context: Context, table: PackedTable, stored: PackedTable | Int8Table) -> None:
        optimizer = SGD(table, lr=context.config.optim.lr)  # without state, and never asked to step
        super().__init__("quantise", table, optimizer, epochs=0, patience=0)
        self._stored = stored

    def stored(self) -> PackedTable | Int8Table:
        return self._stored


class Quantised(Dense):
    """Two stages: dense training, then the same weights in their stored form."""

    def stage(self, number: int, previous: PackedTable | None) -> Stage | None:
        if number == 0:
            trained = super().stage(0, None)
            assert trained is not None
            trained.artefact = "dense"
            return trained
        if number == 1:
            assert previous is not None
            table, stored = self.quantise(previous)
            return StoredStage(self.context, table, stored)
        return None

    @abstractmethod
    def quantise(self, trained: PackedTable) -> tuple[PackedTable, PackedTable | Int8Table]:
        """(table that is evaluated, what is stored of it)."""


class DenseFp16(Quantised):
    """The trained dense table in float16, 2 bytes a weight, rounded to the nearest."""

    name = "dense_fp16"

    def quantise(self, trained: PackedTable) -> tuple[PackedTable, PackedTable]:
        values = trained.values.to(torch.float16)
        if not bool(torch.isfinite(values).all()):
            raise UserError("a trained weight is beyond float16 (65504): lower optim.lr, or take policy dense_int8")
        table = PackedTable(
            trained.rows, trained.dim, trained.kind, trained.index, trained.cols, values, trained.backend
        )
        return table, table


class DenseInt8(Quantised):
    """The trained dense table in int8 with a float32 scale for each row, dim + 4 bytes a row."""

    name = "dense_int8"

    def quantise(self, trained: PackedTable) -> tuple[PackedTable, Int8Table]:
        stored = Int8Table.quantise(trained.values.view(trained.rows, trained.dim))
        return stored.table(), stored
