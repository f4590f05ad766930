"""Training steps of embedding modules on given row gradients: ours, torch's and FBGEMM's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from recsparse import ops, optim
from recsparse.nn import SparseEmbedding
from recsparse.table import PackedTable

from .. import inputs, memory
from ..ops.rows_step import BETA1, BETA2, EPS, LR, RowsProblem
from ..registry import ANYWHERE, OURS, Trial, Unsuited, needs, provider


@provider("rows_step", OURS, devices=ANYWHERE)
def fused(problem: RowsProblem) -> Trial:
    table, ids, gradient, adam = problem.table, problem.ids, problem.gradient, problem.case.optimizer == "adam"
    start = table.values.clone()
    make: Callable[[PackedTable], optim.TableOptimizer] = partial(optim.RowWiseAdagrad, lr=LR, eps=EPS)
    if adam:
        make = partial(optim.Adam, lr=LR, betas=(BETA1, BETA2), eps=EPS)
    module = SparseEmbedding.from_table(table, fused=True, optimizer=make)

    def run(number: int) -> None:
        module(ids[number]).backward(gradient)

    def answer(steps: int) -> tuple[Tensor, bool]:
        table.values.copy_(start)
        for state in module.optimizer.state_dict().values():
            state.zero_()
        for number in range(steps):
            run(number)
        return ops.lookup(table, problem.check_rows).detach(), True

    held = sum(module.nbytes()[part] for part in ("total", "state"))
    # The forward reads a row; the backward reads and writes it with its state.
    forward = inputs.packed_gather(problem.case.batch, table)
    backward = inputs.packed_gather(problem.case.batch, table, arrays=3 if adam else 1, passes=2)
    row_state = 0 if adam else 2 * inputs.LINE * problem.case.batch
    gather = forward.gather + backward.gather + row_state
    traffic = replace(backward, gather=gather, table=held, stream=_streams(problem))
    return Trial(run, answer, traffic, held, problem.case.batch, backend=table.backend, note="fused; masked")


def _streams(problem: RowsProblem) -> int:
    """Bytes of the looked-up rows written, and of their gradient read, with the ids for both."""
    return problem.case.batch * 2 * (8 + problem.case.dim * inputs.FLOAT)


def _dense_trial(
    problem: RowsProblem, step: Callable[[int], None], reset: Callable[[], None], *, masked: bool = False
) -> Trial:
    def answer(steps: int) -> tuple[Tensor, bool]:
        reset()
        for number in range(steps):
            step(number)
        return problem.dense[problem.check_rows], masked

    adam = problem.case.optimizer == "adam"
    arrays = [problem.dense, *([*problem.moments] if adam else []), *([problem.mask] if masked else [])]
    held = memory.nbytes(*arrays)
    # The forward reads the row; the update reads and writes it, and each moment.
    gather = inputs.dense_gather(problem.case.batch, problem.case, passes=(7 if adam else 3) + masked)
    traffic = replace(gather, table=held, stream=_streams(problem))
    return Trial(step, answer, traffic, held, problem.case.batch, note="masked" if masked else "")


def _needs(problem: RowsProblem, optimizer: str, what: str) -> None:
    if problem.case.optimizer != optimizer:
        raise Unsuited(f"{what} is no {problem.case.optimizer}")


def _sparse_adam(problem: RowsProblem, masked: bool) -> Trial:
    _needs(problem, "adam", "SparseAdam")
    ids, gradient = problem.ids, problem.gradient
    embedding = nn.Embedding.from_pretrained(problem.dense, freeze=False, sparse=True)
    optimizer = torch.optim.SparseAdam([embedding.weight], lr=LR, betas=(BETA1, BETA2), eps=EPS)
    mask = problem.mask if masked else None

    def reset() -> None:
        problem.reset_dense()
        first, second = problem.moments
        optimizer.state[embedding.weight] = {"step": 0, "exp_avg": first, "exp_avg_sq": second}

    def step(number: int) -> None:
        rows = embedding(ids[number])
        if mask is not None:
            rows = rows * mask.index_select(0, ids[number])
        rows.backward(gradient)
        optimizer.step()
        optimizer.zero_grad()

    return _dense_trial(problem, step, reset, masked=masked)


@provider("rows_step", "torch.SparseAdam", devices=ANYWHERE)
def sparse_adam(problem: RowsProblem) -> Trial:
    """nn.Embedding(sparse=True)."""
    return _sparse_adam(problem, masked=False)


@provider("rows_step", "weight x mask SparseAdam", devices=ANYWHERE)
def sparse_adam_masked(problem: RowsProblem) -> Trial:
    """The same, with the rows multiplied by those of a mask."""
    return _sparse_adam(problem, masked=True)


@provider("rows_step", "torch.lazy_adam[unique]", devices=ANYWHERE)
def lazy_adam(problem: RowsProblem) -> Trial:
    """No autograd; gradients of repeated rows are summed after ``torch.unique``, the rest is index_select and
    index_copy_."""
    _needs(problem, "adam", "lazy Adam")
    ids, gradient, w = problem.ids, problem.gradient, problem.dense
    m, v = problem.moments
    steps = 0

    @torch.no_grad()
    def step(number: int) -> None:
        nonlocal steps
        steps += 1
        w.index_select(0, ids[number])
        rows, place = ids[number].unique(return_inverse=True)
        summed = w.new_zeros(len(rows), w.shape[1]).index_add_(0, place, gradient)
        first = m.index_select(0, rows).lerp_(summed, 1 - BETA1)
        second = v.index_select(0, rows).mul_(BETA2).addcmul_(summed, summed, value=1 - BETA2)
        m.index_copy_(0, rows, first)
        v.index_copy_(0, rows, second)
        rate = LR * math.sqrt(1 - BETA2**steps) / (1 - BETA1**steps)
        w.index_copy_(0, rows, w.index_select(0, rows).addcdiv_(first, second.sqrt_().add_(EPS), value=-rate))

    def reset() -> None:
        nonlocal steps
        steps = 0
        problem.reset_dense()

    return _dense_trial(problem, step, reset)


@provider("rows_step", "fbgemm", needs("fbgemm_gpu"))
def fbgemm(problem: RowsProblem) -> Trial:
    """Table-batched embedding on the CPU: bags of one id, summed; the update is part of its backward."""
    _needs(problem, "rowwise_adagrad", "EXACT_ROWWISE_ADAGRAD")
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    case, ids, gradient = problem.case, problem.ids, problem.gradient
    module = SplitTableBatchedEmbeddingBagsCodegen(
        [(case.rows, case.dim, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        pooling_mode=PoolingMode.SUM,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=LR,
        eps=EPS,
        device=torch.device("cpu"),
    )
    # Its own weights are replaced by the shared dense table: no second copy of them, and the same pages.
    module.weights_host.data = problem.dense.view(-1)
    offsets = torch.arange(case.batch + 1)

    def step(number: int) -> None:
        rows: Tensor = module(ids[number], offsets)
        rows.backward(gradient)

    def reset() -> None:
        problem.reset_dense()
        module.momentum1_host.data.zero_()

    return _dense_trial(problem, step, reset)
