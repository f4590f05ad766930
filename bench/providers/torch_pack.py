"""Packing and unpacking with torch: CSR conversion, and masked copies of the values alone."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from .. import inputs, memory
from ..ops.pack import PackProblem
from ..registry import ANYWHERE, Traffic, Trial, provider


def _traffic(problem: PackProblem, packed: int) -> Traffic:
    """The dense table, a byte of mask a slot, and the packed form, each once."""
    return Traffic(stream=problem.case.slots * (inputs.FLOAT + 1) + packed)


@provider("pack", "torch.to_sparse_csr", devices=ANYWHERE)
def to_csr(problem: PackProblem) -> Trial:
    # torch says once in a process that CSR is in beta.
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")

    def run(number: int) -> Tensor:
        return problem.dense.to_sparse_csr()

    def answer(number: int) -> tuple[Tensor, Tensor]:
        csr = run(number)
        return csr.values(), csr.to_dense()

    packed = 12 * len(problem.values) + 8 * problem.case.rows
    held = memory.nbytes(problem.dense)
    return Trial(run, answer, _traffic(problem, packed), held, problem.case.slots, note="int64 columns")


@provider("pack", "torch.masked_select", devices=ANYWHERE)
def masked_select(problem: PackProblem) -> Trial:
    out = torch.empty_like(problem.values)

    def run(number: int) -> Tensor:
        return torch.masked_select(problem.dense, problem.mask, out=out)

    held = memory.nbytes(problem.dense, problem.mask, out)
    traffic = _traffic(problem, memory.nbytes(out))
    return Trial(
        run, lambda number: (run(number), None), traffic, held, problem.case.slots, note="values only, no index; out="
    )


@provider("unpack", "torch.csr.to_dense", devices=ANYWHERE)
def from_csr(problem: PackProblem) -> Trial:
    csr = problem.csr

    def run(number: int) -> Tensor:
        return csr.to_dense()

    packed = memory.nbytes(csr.values(), csr.col_indices(), csr.crow_indices())
    traffic = _traffic(problem, packed)
    return Trial(run, lambda number: (run(number), None), traffic, packed, problem.case.slots, note="no mask")


@provider("unpack", "torch.masked_scatter_", devices=ANYWHERE)
def masked_scatter(problem: PackProblem) -> Trial:
    out = memory.empty(*problem.dense.shape)

    def run(number: int) -> Tensor:
        return out.zero_().masked_scatter_(problem.mask, problem.values)

    held = memory.nbytes(problem.mask, problem.values, out)
    traffic = _traffic(problem, memory.nbytes(problem.values))
    return Trial(
        run, lambda number: (run(number), None), traffic, held, problem.case.slots, note="mask is kept dense; out="
    )
