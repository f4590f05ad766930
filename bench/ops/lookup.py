"""Rows by id to dense: ``ops.lookup`` against gathers of the dense table."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recsparse.table import PackedTable

from .. import inputs, memory
from ..registry import Case, Traffic, Trial, register_op


class LookupProblem:
    """One table, dense and packed, and id sets. The dense tensor is float32, exactly what the packed table holds."""

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.dense = inputs.masked_dense(case)
        # No provider can touch less than a line of values and one that says where they are.
        self.n_sets = inputs.count_sets(case, providers, case.batch * 8, case.batch * 2 * inputs.LINE)
        source = inputs.generator(2)
        self.ids = [inputs.draw_ids(case.batch, case.rows, case.ids, source) for _ in range(self.n_sets)]
        self.out = memory.empty(case.batch, case.dim).fill_(0)

    @cached_property
    def table(self) -> PackedTable:
        return inputs.pack_table(self.dense, self.mask, self.case.kind, self.case.value_type)

    @cached_property
    def typed(self) -> Tensor:
        """The same weights in the dtype of the case, for peers that have it."""
        if self.case.value_type == self.dense.dtype:
            return self.dense
        return memory.empty(*self.dense.shape, dtype=self.case.value_type).copy_(self.dense)

    @cached_property
    def typed_out(self) -> Tensor:
        return memory.empty(*self.out.shape, dtype=self.case.value_type).fill_(0)

    @cached_property
    def mask(self) -> Tensor:
        """bool [rows, dim], for the providers that multiply by a mask."""
        mask = memory.empty(*self.dense.shape, dtype=torch.bool)
        return torch.ne(self.dense, 0, out=mask)

    @cached_property
    def csr(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row starts int64 [rows + 1], columns int32 [nnz] and values float32 [nnz]."""
        starts = np.zeros(self.case.rows + 1, dtype=np.int64)
        np.cumsum(self.mask.sum(dim=1).numpy(), out=starts[1:])
        parts = self.mask.split(inputs.ROWS_PER_CHUNK)
        columns = np.concatenate([part.nonzero()[:, 1].to(torch.int32).numpy() for part in parts])
        return starts, columns, self.dense[self.mask].numpy()

    @property
    def csr_traffic(self) -> Traffic:
        """Two row starts, then columns and values, each a run of bytes that begins anywhere in a line."""
        starts, columns, values = self.csr
        kept = inputs.FLOAT * len(values) / self.case.rows
        lines = 1 + 2 * (1 + max(0.0, kept - inputs.FLOAT) / inputs.LINE)
        held = starts.nbytes + columns.nbytes + values.nbytes
        return Traffic(gather=round(self.case.batch * lines * inputs.LINE), table=held, stream=self.result_bytes)

    @property
    def result_bytes(self) -> int:
        """Bytes of ids read and of the dense float32 result written by a call."""
        return self.case.batch * (8 + self.case.dim * 4)

    @property
    def typed_bytes(self) -> int:
        """The same for a result in the dtype of the case."""
        return self.case.batch * (8 + self.case.dim * self.case.value_type.itemsize)


class Lookup:
    name = "lookup"
    unit = "rows"
    shown = ("rows", "dim", "density", "kind", "batch", "ids", "dtype", "cold")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        if quick:
            return [Case(rows=2000, dim=64, density=0.1, batch=300)]
        if device == "cuda":
            return [Case(rows=100_000_000, dim=64, density=0.1, batch=1_000_000)]
        return [Case(rows=8_000_000, dim=64, density=0.1, batch=batch) for batch in (16_384, 1_000_000)]

    def problem(self, case: Case, providers: int) -> LookupProblem:
        return LookupProblem(case, providers)

    def check(self, problem: LookupProblem, trial: Trial) -> str | None:
        for number in (0, problem.n_sets - 1):
            expected = problem.dense.index_select(0, problem.ids[number])
            wrong = inputs.differs([trial.answer(number).float()], [expected])
            if wrong is not None:
                return wrong
        return None


register_op(Lookup())
