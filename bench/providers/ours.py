"""The ops of recsparse."""

from __future__ import annotations

from dataclasses import replace

import torch

from recsparse import ops

from .. import inputs
from ..ops.lookup import LookupProblem
from ..registry import OURS, Trial, provider


@provider("lookup", OURS)
def lookup(problem: LookupProblem) -> Trial:
    table, ids = problem.table, problem.ids

    @torch.no_grad()
    def run(number: int) -> torch.Tensor:
        return ops.lookup(table, ids[number])

    traffic = replace(inputs.packed_gather(problem.case.batch, table), stream=problem.result_bytes)
    held = table.nbytes()["total"]
    return Trial(run, run, traffic, held, problem.case.batch, backend=table.backend, note="allocates the result")
