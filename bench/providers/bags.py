"""Sums of rows: ours, and torch's embedding_bag on the dense table."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from recsparse import ops

from .. import inputs, memory
from ..ops.lookup_bag import LookupBagProblem
from ..registry import ANYWHERE, OURS, Trial, provider


@provider("lookup_bag", OURS, devices=ANYWHERE)
def lookup_bag(problem: LookupBagProblem) -> Trial:
    table, ids, offsets = problem.table, problem.ids, problem.offsets

    @torch.no_grad()
    def run(number: int) -> Tensor:
        return ops.lookup_bag(table, ids[number], offsets, include_last_offset=True)

    traffic = replace(inputs.packed_gather(len(ids[0]), table), stream=problem.stream_bytes)
    return Trial(run, run, traffic, table.nbytes()["total"], len(ids[0]), backend=table.backend)


@provider("lookup_bag", "torch.embedding_bag", devices=ANYWHERE)
def embedding_bag(problem: LookupBagProblem) -> Trial:
    dense, ids, offsets = problem.dense, problem.ids, problem.offsets

    @torch.no_grad()
    def run(number: int) -> Tensor:
        return functional.embedding_bag(ids[number], dense, offsets, mode="sum", include_last_offset=True)

    traffic = replace(inputs.dense_gather(len(ids[0]), problem.case), stream=problem.stream_bytes)
    return Trial(run, run, traffic, memory.nbytes(dense), len(ids[0]))
