"""Thresholded rows: ours, and the two ways to write them in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import ops
from recsparse.backend import resolve_backend

from .. import memory
from ..ops.soft_threshold import SoftThresholdProblem
from ..registry import ANYWHERE, CUDA, OURS, Trial, provider


def _ours(problem: SoftThresholdProblem, backend: str) -> Trial:
    values, thresholds, ids = problem.values, problem.thresholds, problem.ids

    @torch.no_grad()
    def run(number: int) -> Tensor:
        return ops.soft_threshold(values, thresholds, ids[number], backend=backend)

    held = memory.nbytes(values, thresholds)
    return Trial(run, run, problem.traffic, held, problem.case.batch, backend=backend, note="allocates the result")


@provider("soft_threshold", OURS, devices=ANYWHERE)
def soft_threshold(problem: SoftThresholdProblem) -> Trial:
    return _ours(problem, resolve_backend("auto", problem.values.device.type))


@provider("soft_threshold", f"{OURS}[triton]", devices=CUDA)
def soft_threshold_triton(problem: SoftThresholdProblem) -> Trial:
    return _ours(problem, "triton")


def _formula(values: Tensor, thresholds: Tensor) -> Tensor:
    return values.sign() * torch.relu(values.abs() - torch.sigmoid(thresholds))


@provider("soft_threshold", "torch[gathered]", devices=ANYWHERE)
def gathered(problem: SoftThresholdProblem) -> Trial:
    """The formula on the rows alone, which published code does not do."""
    values, thresholds, ids = problem.values, problem.thresholds, problem.ids

    @torch.no_grad()
    def run(number: int) -> Tensor:
        return _formula(values[ids[number]], thresholds[ids[number]])

    held = memory.nbytes(values, thresholds)
    return Trial(run, run, problem.traffic, held, problem.case.batch, note="both gathered, then eight passes")


@provider("soft_threshold", "torch[whole table]", devices=ANYWHERE)
def whole_table(problem: SoftThresholdProblem) -> Trial:
    """As published: the thresholded table in every forward."""
    values, thresholds, ids = problem.values, problem.thresholds, problem.ids

    @torch.no_grad()
    def run(number: int) -> Tensor:
        return _formula(values, thresholds)[ids[number]]

    held = memory.nbytes(values, thresholds, values)
    return Trial(run, run, problem.whole_traffic, held, problem.case.batch, note="as PEP's code")
