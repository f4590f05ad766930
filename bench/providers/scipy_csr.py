"""Lookup, packing and unpacking with scipy's CSR matrices, one thread each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .. import inputs, memory
from ..ops.lookup import LookupProblem
from ..ops.pack import PackProblem
from ..registry import Traffic, Trial, needs, provider


@provider("lookup", "scipy.csr", needs("scipy"))
def rows(problem: LookupProblem) -> Trial:
    from scipy.sparse import csr_array

    case, out = problem.case, problem.out
    starts, columns, values = problem.csr
    matrix = csr_array((values, columns, starts), shape=(case.rows, case.dim))
    array = out.numpy()

    def run(number: int) -> Tensor:
        matrix[problem.ids[number].numpy()].toarray(out=array)
        return out

    held = starts.nbytes + columns.nbytes + values.nbytes
    kept = round(case.batch * len(values) / case.rows)
    # Besides the gathers of a CSR lookup: the picked rows are written and read once more, as a CSR matrix.
    traffic = replace(problem.csr_traffic, stream=problem.result_bytes + 2 * 8 * kept)
    return Trial(run, run, traffic, held + memory.nbytes(out), case.batch, note="csr[ids].toarray(out=), one thread")


def _traffic(problem: PackProblem, packed: int) -> Traffic:
    return Traffic(stream=problem.case.slots * inputs.FLOAT + packed)


@provider("pack", "scipy.csr", needs("scipy"))
def to_csr(problem: PackProblem) -> Trial:
    from scipy.sparse import csr_array

    dense = problem.dense.numpy()

    def run(number: int) -> csr_array:
        return csr_array(dense)

    def answer(number: int) -> tuple[Tensor, Tensor]:
        matrix = run(number)
        return torch.from_numpy(matrix.data), torch.from_numpy(matrix.toarray())

    packed = 8 * len(problem.values) + 4 * problem.case.rows
    return Trial(run, answer, _traffic(problem, packed), dense.nbytes, problem.case.slots, note="csr_array(dense)")


@provider("unpack", "scipy.csr", needs("scipy"))
def from_csr(problem: PackProblem) -> Trial:
    from scipy.sparse import csr_array

    matrix = csr_array(problem.dense.numpy())
    out = memory.empty(*problem.dense.shape)

    def run(number: int) -> np.ndarray:
        return matrix.toarray(out=out.numpy())

    packed = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    return Trial(
        run,
        lambda number: (torch.from_numpy(run(number)), None),
        _traffic(problem, packed),
        packed + memory.nbytes(out),
        problem.case.slots,
        note="toarray(out=); no mask",
    )
