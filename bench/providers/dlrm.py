"""Training steps of a DLRM-style model with our embeddings and with torch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from recsparse.models import DLRM
from recsparse.nn import SparseEmbedding
from recsparse.optim import Adam

from .. import inputs, memory
from ..ops.dlrm_step import BETA1, BETA2, EPS, FEATURES, LR, DlrmProblem
from ..registry import OURS, Traffic, Trial, provider


@provider("dlrm_step", OURS)
def fused(problem: DlrmProblem) -> Trial:
    """The tables are updated in the backward."""
    make = partial(Adam, lr=LR, betas=(BETA1, BETA2), eps=EPS)
    tables = [
        inputs.pack_table(problem.weight(feature), problem.weight(feature) != 0, problem.case.kind)
        for feature in range(FEATURES)
    ]
    embeddings = [SparseEmbedding.from_table(table, fused=True, optimizer=make) for table in tables]
    start = [table.values.clone() for table in tables]

    def reset() -> None:
        for embedding, values in zip(embeddings, start, strict=True):
            embedding.values.copy_(values)
            for state in embedding.optimizer.state_dict().values():
                state.zero_()

    held = sum(sum(embedding.nbytes()[name] for name in ("total", "state")) for embedding in embeddings)
    gather = inputs.packed_gather(problem.case.batch * FEATURES, tables[0], arrays=3, passes=2)
    return _trial(problem, list(embeddings), None, reset, replace(gather, table=held), masked=True)


@provider("dlrm_step", "torch.SparseAdam")
def sparse_adam(problem: DlrmProblem) -> Trial:
    """nn.Embedding(sparse=True) for the tables."""
    copies = [memory.copied(problem.weight(feature)) for feature in range(FEATURES)]
    embeddings = [nn.Embedding.from_pretrained(weight, freeze=False, sparse=True) for weight in copies]
    optimizer = torch.optim.SparseAdam([e.weight for e in embeddings], lr=LR, betas=(BETA1, BETA2), eps=EPS)
    moments = [[memory.copied(weight).zero_() for weight in copies] for _ in range(2)]

    def reset() -> None:
        for feature, embedding in enumerate(embeddings):
            embedding.weight.data.copy_(problem.weight(feature))
            first, second = moments[0][feature].zero_(), moments[1][feature].zero_()
            optimizer.state[embedding.weight] = {"step": 0, "exp_avg": first, "exp_avg_sq": second}

    reset()
    held = memory.nbytes(*copies, *moments[0], *moments[1])
    gather = inputs.dense_gather(problem.case.batch * FEATURES, problem.case, passes=6)
    return _trial(problem, list(embeddings), optimizer, reset, replace(gather, table=held), masked=False)


def _trial(
    problem: DlrmProblem,
    embeddings: list[nn.Module],
    optimizer: torch.optim.Optimizer | None,
    reset: Callable[[], None],
    traffic: Traffic,
    *,
    masked: bool,
) -> Trial:
    """``traffic`` counts the rows of the tables and of their state, read and written; the MLPs live in the cache."""

    def step(model: DLRM, mlps: torch.optim.Optimizer, number: int) -> Tensor:
        loss = problem.loss(model, number)
        loss.backward()
        mlps.step()
        mlps.zero_grad()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    def answer(steps: int) -> tuple[list[float], bool]:
        reset()
        model, mlps = problem.model(embeddings)
        return [float(step(model, mlps, number)) for number in range(steps)], masked

    model, mlps = problem.model(embeddings)
    note = "lazy, masked, fused" if masked else "lazy"
    return Trial(
        lambda number: step(model, mlps, number), answer, traffic, traffic.table, problem.case.batch, note=note
    )
