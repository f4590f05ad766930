"""One layer of propagation over an interaction graph: ``ops.spmm`` against sparse products with stored values."""

from __future__ import annotations

import warnings
from functools import cached_property

import torch
from torch import Tensor

from .. import graphs, inputs, memory
from ..registry import Case, Traffic, Trial, register_op

CHECK_ROWS = 4096


class SpmmProblem:
    """One graph and sets of dense rows, of the dtype of the case and in float32 of the same numbers."""

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.graph = graphs.load(case.graph)
        size = self.graph.nodes * case.dim * inputs.FLOAT
        self.n_sets = min(24, inputs.count_sets(case, providers, 2 * size, size))
        source = inputs.generator(2)
        self.typed = [
            memory.empty(self.graph.nodes, case.dim, dtype=case.value_type).copy_(
                torch.randn(self.graph.nodes, case.dim, generator=source)
            )
            for _ in range(self.n_sets)
        ]
        self.check_rows = torch.randint(self.graph.nodes, (CHECK_ROWS,), generator=inputs.generator(3))

    @cached_property
    def floats(self) -> list[Tensor]:
        if self.case.value_type == torch.float32:
            return self.typed
        return [memory.empty(*x.shape).copy_(x) for x in self.typed]

    @cached_property
    def csr(self) -> Tensor:
        """The matrix with int64 indices and float32 values."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Sparse CSR tensor support is in beta state"
            return self.graph.to_sparse_csr()

    def traffic(self, value_bytes: int, edge_bytes: int) -> Traffic:
        """A row for each edge, its id and value, and the result."""
        row = self.case.dim * value_bytes
        entries = 2 * self.graph.edges
        return Traffic(
            gather=entries * row,
            line=inputs.dense_line(row),
            table=self.graph.nodes * row,
            stream=entries * edge_bytes + self.graph.nodes * (row + 8),
        )

    def expected(self, number: int) -> Tensor:
        matrix = torch.sparse_csr_tensor(
            self.csr.crow_indices(), self.csr.col_indices(), self.csr.values().double(), self.csr.shape
        )
        return (matrix @ self.floats[number].double())[self.check_rows]


class Spmm:
    name = "spmm"
    unit = "edges"
    shown = ("graph", "dim", "dtype", "cold")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        graph = "small" if quick else "yelp2018-like"
        return [Case(graph=graph, dim=64, dtype=dtype) for dtype in ("float32", "bfloat16")]

    def problem(self, case: Case, providers: int) -> SpmmProblem:
        return SpmmProblem(case, providers)

    def check(self, problem: SpmmProblem, trial: Trial) -> str | None:
        """To what rounding to the dtype of the result allows."""
        answer = trial.answer(0)
        want = problem.expected(0)
        if answer.shape != want.shape:
            return f"the rows have shape {tuple(answer.shape)}, expected {tuple(want.shape)}"
        tolerance = 1e-5 if answer.dtype == torch.float32 else 1e-2
        error = float((answer.double() - want).abs().max())
        return None if error <= tolerance * float(want.abs().max()) else f"a row differs by {error:.2e}"


register_op(Spmm())
