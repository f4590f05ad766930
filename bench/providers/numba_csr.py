"""Lookup in a CSR table with one thread per row, compiled by numba: how pruned tables are usually served.

A row is located by two row starts; its output is cleared and its kept weights are scattered into it. This is the kernel
that published pruned-embedding code uses on CPU and GPU, written anew.
"""

from __future__ import annotations

import torch

from .. import memory
from ..ops.lookup import LookupProblem
from ..registry import Trial, needs, provider


@provider("lookup", "numba.csr", needs("numba"))
def csr(problem: LookupProblem) -> Trial:
    threads = torch.get_num_threads()  # before numba changes it
    import numba

    @numba.njit(parallel=True)
    def gather(starts, columns, values, ids, out):  # type: ignore[no-untyped-def]
        for row in numba.prange(len(ids)):
            out[row, :] = 0.0
            for place in range(starts[ids[row]], starts[ids[row] + 1]):
                out[row, columns[place]] = values[place]

    starts, columns, values = problem.csr
    ids, out = problem.ids, problem.out
    array = out.numpy()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))

    def run(number: int) -> torch.Tensor:
        gather(starts, columns, values, ids[number].numpy(), array)
        return out

    held = starts.nbytes + columns.nbytes + values.nbytes + memory.nbytes(out)
    return Trial(run, run, problem.csr_traffic, held, problem.case.batch, note="one thread per row; out=")
