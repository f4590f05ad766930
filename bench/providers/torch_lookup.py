"""Lookup with torch: the gathers of a dense table, and the weight x mask form that published methods use."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from .. import inputs, memory
from ..ops.lookup import LookupProblem
from ..registry import ANYWHERE, CUDA, Traffic, Trial, provider


def _dense_traffic(problem: LookupProblem) -> Traffic:
    return replace(inputs.dense_gather(problem.case.batch, problem.case), stream=problem.result_bytes)


@provider("lookup", "torch.index_select", devices=ANYWHERE)
def index_select(problem: LookupProblem) -> Trial:
    dense, ids, out = problem.typed, problem.ids, problem.typed_out

    def run(number: int) -> torch.Tensor:
        return torch.index_select(dense, 0, ids[number], out=out)

    gather = inputs.dense_gather(problem.case.batch, problem.case, size=dense.element_size())
    traffic = replace(gather, stream=problem.typed_bytes)
    held = memory.nbytes(dense, out)
    return Trial(run, run, traffic, held, problem.case.batch, note="out=", dtype=problem.case.dtype)


@provider("lookup", "torch.embedding_bag", devices=ANYWHERE)
def embedding_bag(problem: LookupProblem) -> Trial:
    dense, ids = problem.dense, problem.ids
    offsets = torch.arange(problem.case.batch)

    @torch.no_grad()
    def run(number: int) -> torch.Tensor:
        return functional.embedding_bag(ids[number], dense, offsets, mode="sum")

    held = memory.nbytes(dense, offsets)
    return Trial(run, run, _dense_traffic(problem), held, problem.case.batch, note="bags of one; allocates the result")


@provider("lookup", "weight x mask", devices=ANYWHERE)
def weight_times_mask(problem: LookupProblem) -> Trial:
    dense, mask, ids, out = problem.dense, problem.mask, problem.ids, problem.out
    kept = torch.empty(out.shape, dtype=torch.bool)

    def run(number: int) -> torch.Tensor:
        torch.index_select(dense, 0, ids[number], out=out)
        torch.index_select(mask, 0, ids[number], out=kept)
        return torch.mul(out, kept, out=out)

    rows = problem.case.batch * problem.case.dim
    dense_rows = _dense_traffic(problem)
    traffic = replace(dense_rows, gather=dense_rows.gather + rows, stream=dense_rows.stream + 3 * rows * 4)
    held = memory.nbytes(dense, mask, out, kept)
    return Trial(run, run, traffic, held, problem.case.batch, note="rows of both gathered, then multiplied; out=")


@provider("lookup", "weight x mask[torch.compile]", devices=CUDA)
def weight_times_mask_compiled(problem: LookupProblem) -> Trial:
    """The same in one kernel, which TorchInductor writes: no gathered row goes through memory."""
    dense, mask, ids = problem.dense, problem.mask, problem.ids

    @torch.compile(dynamic=False)
    def gather(wanted: torch.Tensor) -> torch.Tensor:
        return dense[wanted] * mask[wanted]

    gather(ids[0])
    rows = problem.case.batch * problem.case.dim
    dense_rows = _dense_traffic(problem)
    traffic = replace(dense_rows, gather=dense_rows.gather + rows)
    return Trial(
        lambda number: gather(ids[number]),
        lambda number: gather(ids[number]),
        traffic,
        memory.nbytes(dense, mask),
        problem.case.batch,
        note="one fused kernel; allocates the result",
    )
