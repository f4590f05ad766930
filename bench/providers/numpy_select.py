"""k-th largest magnitude with torch and numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .. import inputs, memory
from ..ops.select import SelectProblem
from ..registry import ANYWHERE, Traffic, Trial, provider


def _trial(problem: SelectProblem, run: Callable[[int], float], *held: Tensor, note: str = "") -> Trial:
    # A lower bound for any method: the values are read once.
    traffic = Traffic(stream=problem.case.slots * inputs.FLOAT)
    kept = memory.nbytes(problem.values[0], *held)
    return Trial(run, lambda number: (run(number), None), traffic, kept, problem.case.slots, note=note)


@provider("select", "torch.topk", devices=ANYWHERE)
def topk(problem: SelectProblem) -> Trial:
    def run(number: int) -> float:
        torch.abs(problem.values[number], out=problem.buffer)
        return float(torch.topk(problem.buffer, problem.k, sorted=False).values.min())

    return _trial(problem, run, problem.buffer)


@provider("select", "torch.kthvalue", devices=ANYWHERE)
def kthvalue(problem: SelectProblem) -> Trial:
    def run(number: int) -> float:
        torch.abs(problem.values[number], out=problem.buffer)
        return float(torch.kthvalue(problem.buffer, problem.case.slots - problem.k + 1).values)

    return _trial(problem, run, problem.buffer)


@provider("select", "numpy.partition")
def partition(problem: SelectProblem) -> Trial:
    place = problem.case.slots - problem.k

    def run(number: int) -> float:
        buffer = problem.buffer.numpy()
        np.abs(problem.values[number].numpy(), out=buffer)
        buffer.partition(place)
        return float(buffer[place])

    return _trial(problem, run, problem.buffer, note="abs into a given buffer, partitioned in place")


@provider("select", "numpy.partition[|v| given]")
def partition_alone(problem: SelectProblem) -> Trial:
    place = problem.case.slots - problem.k

    def before(number: int) -> None:
        problem.buffer.copy_(problem.magnitudes[number])

    def run(number: int) -> float:
        buffer = problem.buffer.numpy()
        buffer.partition(place)
        return float(buffer[place])

    def answer(number: int) -> tuple[float, None]:
        before(number)
        return run(number), None

    trial = _trial(problem, run, problem.buffer, note="|v| computed and copied outside the timing")
    trial.before, trial.answer = before, answer
    return trial
