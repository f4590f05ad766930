"""Full steps of Adam: ours on kept weights, torch's on the dense table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recsparse import ops, optim
from recsparse.table import PackedTable

from .. import inputs, memory
from ..ops.adam import BETA1, BETA2, EPS, LR, AdamProblem
from ..registry import ANYWHERE, CUDA, OURS, Traffic, Trial, provider


@provider("adam", OURS, devices=ANYWHERE)
def packed(problem: AdamProblem) -> Trial:
    return _packed(problem, problem.table)


@provider("adam", f"{OURS}[triton]", devices=CUDA)
def packed_triton(problem: AdamProblem) -> Trial:
    return _packed(problem, inputs.on_backend(problem.table, "triton"))


def _packed(problem: AdamProblem, table: PackedTable) -> Trial:
    grad = problem.packed_gradient
    optimizer = optim.Adam(table, lr=LR, betas=(BETA1, BETA2), eps=EPS, lazy=False)
    start = table.values.clone()

    def answer(steps: int) -> tuple[Tensor, bool]:
        table.values.copy_(start)
        for state in optimizer.state_dict().values():
            state.zero_()
        for _ in range(steps):
            optimizer.update_packed(grad)
        return ops.lookup(table, problem.check_rows).detach(), True

    held = table.nbytes()["total"] + optimizer.nbytes() + memory.nbytes(grad)
    # Weights and both moments read and written, the gradient read.
    traffic = Traffic(stream=7 * inputs.FLOAT * table.nnz)
    return Trial(
        lambda number: optimizer.update_packed(grad),
        answer,
        traffic,
        held,
        problem.case.slots,
        backend=table.backend,
        note="kept weights",
    )


def _dense(problem: AdamProblem, masked: bool = False, **options: Any) -> Trial:
    state = problem.dense
    weight = torch.nn.Parameter(state.w)
    optimizer = torch.optim.Adam([weight], lr=LR, betas=(BETA1, BETA2), eps=EPS, **options)
    mask = problem.mask if masked else None
    # The masked gradient has its own place: autograd too writes its product to one.
    weight.grad = problem.gradient if mask is None else memory.empty(*mask.shape)

    def step() -> None:
        if mask is not None:
            torch.mul(problem.gradient, mask, out=weight.grad)
        optimizer.step()

    def answer(steps: int) -> tuple[Tensor, bool]:
        problem.reset_dense()
        # The fused form counts its steps on the device, the others on the host.
        count = torch.zeros((), device=weight.device if options.get("fused") else "cpu")
        optimizer.state[weight] = {"step": count, "exp_avg": state.m, "exp_avg_sq": state.v}
        for _ in range(steps):
            step()
        return state.w[problem.check_rows], masked

    # As ours, but of all slots; the product of gradient and mask is two reads and a write more.
    traffic = Traffic(stream=(10 if masked else 7) * inputs.FLOAT * problem.case.slots)
    arrays = [state.w, state.m, state.v, problem.gradient, *([] if mask is None else [mask, weight.grad])]
    note = "gradient x mask, then Adam" if masked else "all slots"
    return Trial(lambda number: step(), answer, traffic, memory.nbytes(*arrays), problem.case.slots, note=note)


@provider("adam", "torch.Adam(fused)", devices=ANYWHERE)
def fused(problem: AdamProblem) -> Trial:
    return _dense(problem, fused=True)


@provider("adam", "torch.Adam(foreach)", devices=ANYWHERE)
def foreach(problem: AdamProblem) -> Trial:
    return _dense(problem, foreach=True)


@provider("adam", "weight x mask Adam(fused)", devices=ANYWHERE)
def fused_masked(problem: AdamProblem) -> Trial:
    return _dense(problem, masked=True, fused=True)
