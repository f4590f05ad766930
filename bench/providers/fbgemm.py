"""Lookup with FBGEMM's table-batched embedding on the CPU: sum pooling with bags of one, its fast path."""

from __future__ import annotations

from dataclasses import replace

import torch

from .. import inputs, memory
from ..ops.lookup import LookupProblem
from ..registry import Trial, needs, provider


@provider("lookup", "fbgemm", needs("fbgemm_gpu"))
def table_batched(problem: LookupProblem) -> Trial:
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    case, ids = problem.case, problem.ids
    # Its own weights are replaced by the shared dense table: no second copy of gigabytes, and the same pages.
    specs = [(case.rows, case.dim, EmbeddingLocation.HOST, ComputeDevice.CPU)]
    module = SplitTableBatchedEmbeddingBagsCodegen(specs, pooling_mode=PoolingMode.SUM, device=torch.device("cpu"))
    module.weights_host.data = problem.dense.view(-1)
    offsets = torch.arange(case.batch + 1)

    @torch.no_grad()
    def run(number: int) -> torch.Tensor:
        return module(ids[number], offsets)

    traffic = replace(inputs.dense_gather(case.batch, case), stream=problem.result_bytes)
    held = memory.nbytes(problem.dense, offsets)
    return Trial(run, run, traffic, held, case.batch, note="SUM, bags of one; allocates the result")
