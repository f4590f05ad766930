"""A DSL update on dense weights, mask, moments and |gradient|, with the thresholds found in several ways."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import inputs, memory
from ..ops.prune_regrow import DenseTable, PruneProblem
from ..registry import ANYWHERE, Traffic, Trial, provider

Threshold = Callable[[Tensor, int], float]


def _trial(problem: PruneProblem, smallest: Threshold, largest: Threshold, note: str) -> Trial:
    """``smallest(values, k)`` is the k-th smallest value, ``largest(values, k)`` the k-th largest."""
    count = problem.replaced

    def run(number: int) -> DenseTable:
        state, scores = problem.dense, problem.scores
        magnitude = state.w.abs()
        drop = smallest(magnitude[state.mask], count)
        free = ~state.mask
        grow = largest(scores, count)
        kept = state.mask.logical_and_(magnitude > drop)
        for part in (state.w, state.m, state.v):
            part.mul_(kept)
        kept.logical_or_(free.logical_and_(scores >= grow))
        return state

    def answer(number: int) -> DenseTable:
        problem.restore_dense(number)
        return run(number)

    # The least that dense arrays allow: weights and moments read and written, mask too, scores read.
    slots = problem.case.slots
    traffic = Traffic(stream=slots * (7 * inputs.FLOAT + 2))
    held = memory.nbytes(*problem.dense.parts(), problem.scores)
    return Trial(run, answer, traffic, held, slots, before=problem.restore_dense, note=note)


@provider("prune_regrow", "numpy.partition")
def partition(problem: PruneProblem) -> Trial:
    def smallest(values: Tensor, k: int) -> float:
        array = values.numpy()
        array.partition(k - 1)
        return float(array[k - 1])

    def largest(values: Tensor, k: int) -> float:
        array = values.numpy()
        candidates = array[array > 0]
        candidates.partition(len(candidates) - k)
        return float(candidates[len(candidates) - k])

    return _trial(problem, smallest, largest, "in place, on kept weights and on non-zero scores only")


@provider("prune_regrow", "torch.topk", devices=ANYWHERE)
def topk(problem: PruneProblem) -> Trial:
    def smallest(values: Tensor, k: int) -> float:
        return float(values.topk(k, largest=False, sorted=False).values.max())

    def largest(values: Tensor, k: int) -> float:
        return float(values.view(-1).topk(k, sorted=False).values.min())

    return _trial(problem, smallest, largest, "on kept weights and on all scores")


@provider("prune_regrow", "torch.sort", devices=ANYWHERE)
def sort(problem: PruneProblem) -> Trial:
    def smallest(values: Tensor, k: int) -> float:
        return float(torch.sort(values).values[k - 1])

    def largest(values: Tensor, k: int) -> float:
        return float(torch.sort(values.view(-1), descending=True).values[k - 1])

    return _trial(problem, smallest, largest, "kept weights and all scores sorted, the way published code does it")
