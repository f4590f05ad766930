"""Lookup with FBGEMM's table-batched embedding: sum pooling; bags of one are its fast path on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .. import inputs, memory
from ..ops.lookup import LookupProblem
from ..ops.lookup_bag import LookupBagProblem
from ..registry import ANYWHERE, Case, Trial, needs, provider


def _module(case: Case, weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    # Its own weights are replaced by the shared dense table: no second copy of gigabytes, and the same pages.
    on_gpu = weight.is_cuda
    place = (EmbeddingLocation.DEVICE, ComputeDevice.CUDA) if on_gpu else (EmbeddingLocation.HOST, ComputeDevice.CPU)
    module = SplitTableBatchedEmbeddingBagsCodegen(
        [(case.rows, case.dim, *place)], pooling_mode=PoolingMode.SUM, device=weight.device
    )
    (module.weights_dev if on_gpu else module.weights_host).data = weight.view(-1)
    return module


@provider("lookup", "fbgemm", needs("fbgemm_gpu"), devices=ANYWHERE)
def table_batched(problem: LookupProblem) -> Trial:
    case, ids = problem.case, problem.ids
    module = _module(case, problem.dense)
    offsets = torch.arange(case.batch + 1)

    @torch.no_grad()
    def run(number: int) -> Tensor:
        return module(ids[number], offsets)

    traffic = replace(inputs.dense_gather(case.batch, case), stream=problem.result_bytes)
    held = memory.nbytes(problem.dense, offsets)
    return Trial(run, run, traffic, held, case.batch, note="SUM, bags of one; allocates the result")


@provider("lookup_bag", "fbgemm", needs("fbgemm_gpu"), devices=ANYWHERE)
def table_batched_bags(problem: LookupBagProblem) -> Trial:
    case, ids, offsets = problem.case, problem.ids, problem.offsets
    module = _module(case, problem.dense)

    @torch.no_grad()
    def run(number: int) -> Tensor:
        return module(ids[number], offsets)

    traffic = replace(inputs.dense_gather(len(ids[0]), case), stream=problem.stream_bytes)
    return Trial(run, run, traffic, memory.nbytes(problem.dense), len(ids[0]), note="SUM")
