"""Lookup in a CSR table with one thread per row, compiled by numba: how pruned tables are usually served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from .. import inputs, memory
from ..ops.lookup import LookupProblem
from ..registry import Trial, needs, provider


@provider("lookup", "numba.csr", needs("numba"))
def csr(problem: LookupProblem) -> Trial:
    import numba

    @numba.njit(parallel=True)
    def gather(starts, columns, values, ids, out):  # type: ignore[no-untyped-def]
        for row in numba.prange(len(ids)):
            out[row, :] = 0.0
            for place in range(starts[ids[row]], starts[ids[row] + 1]):
                out[row, columns[place]] = values[place]

    case = problem.case
    mask = problem.mask
    starts = np.zeros(case.rows + 1, dtype=np.int64)
    np.cumsum(mask.sum(dim=1).numpy(), out=starts[1:])
    columns = np.concatenate([part.nonzero()[:, 1].to(torch.int32).numpy() for part in mask.split(1 << 18)])
    values = problem.dense[mask].numpy()
    ids, out = problem.ids, problem.out
    array = out.numpy()
    numba.set_num_threads(min(torch.get_num_threads(), numba.get_num_threads()))

    def run(number: int) -> torch.Tensor:
        gather(starts, columns, values, ids[number].numpy(), array)
        return out

    # Two row starts, then columns and values, each a run of bytes that begins anywhere in a line.
    kept = 4 * len(values) / case.rows
    lines = 1 + 2 * (1 + max(0.0, kept - 4) / inputs.LINE)
    held = starts.nbytes + columns.nbytes + values.nbytes
    traffic = replace(
        inputs.dense_gather(0, case),
        gather=round(case.batch * lines * 64),
        line=64,
        table=held,
        stream=problem.result_bytes,
    )
    return Trial(run, run, traffic, held + memory.nbytes(out), case.batch, note="one thread per row; out=")
