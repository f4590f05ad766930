"""The ops of recsparse."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recsparse import ops
from recsparse.backend import resolve_backend
from recsparse.table import PackedTable

from .. import inputs, memory
from ..ops.bpr_step import CHUNK, L2, BprProblem
from ..ops.lookup import LookupProblem
from ..ops.pack import PackProblem
from ..ops.prune_regrow import DenseTable, PruneProblem
from ..ops.rank import K, RankProblem
from ..ops.sample import SampleProblem
from ..ops.select import SelectProblem
from ..registry import ANYWHERE, CUDA, OURS, Traffic, Trial, provider


@provider("lookup", OURS, devices=ANYWHERE)
def lookup(problem: LookupProblem) -> Trial:
    return _lookup(problem, problem.table)


@provider("lookup", f"{OURS}[triton]", devices=CUDA)
def lookup_triton(problem: LookupProblem) -> Trial:
    return _lookup(problem, inputs.on_backend(problem.table, "triton"))


def _lookup(problem: LookupProblem, table: PackedTable) -> Trial:
    ids = problem.ids

    @torch.no_grad()
    def run(number: int) -> Tensor:
        return ops.lookup(table, ids[number], out=problem.typed_out)

    traffic = replace(inputs.packed_gather(problem.case.batch, table), stream=problem.typed_bytes)
    held = table.nbytes()["total"]
    return Trial(run, run, traffic, held, problem.case.batch, backend=table.backend, dtype=problem.case.dtype)


def _bpr_step(problem: BprProblem, chunk: int, backend: str | None = None) -> Trial:
    batch = problem.case.batch
    table, optimizer = problem.table, problem.optimizer
    if backend is not None:
        table = inputs.on_backend(table, backend)
        optimizer = problem.new_optimizer(table)

    def step(number: int, count: int) -> Tensor:
        users, pos, neg = problem.batches(number, count)
        return ops.bpr_step_(table, optimizer, users, pos, neg, item_offset=problem.n_users, batch_size=batch, l2=L2)

    def answer(steps: int) -> tuple[Tensor, Tensor, bool, bool]:
        problem.reset_packed(optimizer)
        losses = torch.cat([step(number, 1) for number in range(steps)])
        return losses, ops.lookup(table, problem.check_rows).detach(), True, True

    # Each touched row is read and written: the index once, weight and both moments.
    traffic = inputs.packed_gather(3 * batch * chunk, table, arrays=3, passes=2)
    held = table.nbytes()["total"] + optimizer.nbytes()
    return Trial(
        lambda number: step(number, chunk),
        answer,
        replace(traffic, table=held),
        held,
        batch * chunk,
        steps=chunk,
        backend=table.backend,
        note=f"lazy, masked; {chunk} mini-batches a call",
        dtype=problem.case.dtype,
    )


@provider("bpr_step", OURS, devices=ANYWHERE)
def bpr_step(problem: BprProblem) -> Trial:
    """As the trainer calls it: a chunk of mini-batches at a time, each an exact step."""
    return _bpr_step(problem, CHUNK)


@provider("bpr_step", f"{OURS}[one batch a call]", devices=ANYWHERE)
def bpr_step_single(problem: BprProblem) -> Trial:
    return _bpr_step(problem, 1)


@provider("bpr_step", f"{OURS}[triton]", devices=CUDA)
def bpr_step_triton(problem: BprProblem) -> Trial:
    return _bpr_step(problem, CHUNK, "triton")


@provider("select", OURS, devices=ANYWHERE)
def select(problem: SelectProblem) -> Trial:
    return _select(problem, "auto")


@provider("select", f"{OURS}[triton]", devices=CUDA)
def select_triton(problem: SelectProblem) -> Trial:
    return _select(problem, "triton")


def _select(problem: SelectProblem, backend: str) -> Trial:
    def run(number: int) -> tuple[float, int]:
        found = ops.select(problem.values[number], problem.k, backend=backend)
        return found.threshold, found.ties

    traffic = Traffic(stream=problem.case.slots * inputs.FLOAT)
    return Trial(run, run, traffic, memory.nbytes(problem.values[0]), problem.case.slots)


@provider("prune_regrow", OURS, devices=ANYWHERE)
def prune_regrow(problem: PruneProblem) -> Trial:
    return _prune_regrow(problem, problem.table)


@provider("prune_regrow", f"{OURS}[triton]", devices=CUDA)
def prune_regrow_triton(problem: PruneProblem) -> Trial:
    return _prune_regrow(problem, inputs.on_backend(problem.table, "triton"))


def _prune_regrow(problem: PruneProblem, table: PackedTable) -> Trial:
    moments, count = problem.moments, problem.replaced
    saved_table = {name: part.clone() for name, part in table.state_dict().items()}
    saved_moments = moments.clone()

    def before(number: int) -> None:
        table.load_state_dict(saved_table)
        moments.copy_(saved_moments)

    def run(number: int) -> None:
        keys, scores = problem.candidates[number]
        ops.prune_regrow_(table, moments, keys, scores, drop=count, grow=count)

    def answer(number: int) -> DenseTable:
        before(number)
        run(number)
        return problem.unpacked()

    stored = table.nbytes()
    held = stored["total"] + memory.nbytes(moments)
    # Values are read once to select; then values, moments and index are read and written.
    traffic = Traffic(stream=stored["values"] + 2 * held)
    return Trial(run, answer, traffic, held, problem.case.slots, before=before, backend=table.backend)


@provider("sample", OURS, devices=ANYWHERE)
def sample(problem: SampleProblem) -> Trial:
    users = torch.arange(problem.n_users)
    batch = problem.case.batch

    def run(number: int) -> tuple[Tensor, Tensor, Tensor]:
        return ops.sample(
            problem.indptr, problem.items, users, problem.n_items, seed=1, start=number * batch, count=batch
        )

    held = memory.nbytes(problem.indptr, problem.items, users)
    return Trial(run, run, Traffic(), held, batch, note="every negative true, no rejection")


def _rank(problem: RankProblem, screen: str, backend: str = "auto") -> Trial:
    batch, packed = problem.case.batch, problem.case.kind != "full" or problem.case.dtype != "float32"
    nothing = torch.zeros(batch + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    backend = resolve_backend(backend, problem.users.device.type)
    if packed:
        ids, table = torch.arange(batch), inputs.on_backend(problem.table, backend)
        held, note = table.nbytes()["total"], "from the packed table"
    else:
        held, note = memory.nbytes(problem.joint), ""

    def run(number: int) -> Tensor:
        if packed:
            lists = ops.rank_packed(table, ids, *nothing, K, item_offset=batch, screen=screen)
        else:
            lists = ops.rank(problem.users, problem.items, *nothing, K, screen=screen, backend=backend)
        return lists[0]

    return Trial(run, run, Traffic(), held, batch, backend=backend, note=note, dtype=problem.case.dtype)


@provider("rank", OURS, devices=ANYWHERE)
def rank(problem: RankProblem) -> Trial:
    """As evaluation calls it: int8 screening where the CPU can, exact lists."""
    return _rank(problem, "auto")


@provider("rank", f"{OURS}[float32]")
def rank_float32(problem: RankProblem) -> Trial:
    return _rank(problem, "float32")


@provider("rank", f"{OURS}[triton]", devices=CUDA)
def rank_triton(problem: RankProblem) -> Trial:
    return _rank(problem, "auto", "triton")


@provider("pack", OURS, devices=ANYWHERE)
def pack(problem: PackProblem) -> Trial:
    table, kind, count = problem.table, problem.case.kind, len(problem.values)

    def run(number: int) -> tuple[Tensor, Tensor, Tensor]:
        return ops.pack(problem.dense, problem.mask, kind, count)

    def answer(number: int) -> tuple[Tensor, Tensor]:
        index, cols, values = run(number)
        table.load_state_dict({"index": index, "cols": cols, "values": values})
        return values[:count], table.to_dense()

    traffic = Traffic(stream=problem.case.slots * (inputs.FLOAT + 1) + table.nbytes()["total"])
    held = memory.nbytes(problem.dense, problem.mask)
    return Trial(run, answer, traffic, held, problem.case.slots, backend=table.backend)


@provider("unpack", OURS, devices=ANYWHERE)
def unpack(problem: PackProblem) -> Trial:
    table = problem.table

    def run(number: int) -> tuple[Tensor, Tensor]:
        return ops.unpack(table)

    stored = table.nbytes()["total"]
    traffic = Traffic(stream=problem.case.slots * (inputs.FLOAT + 1) + stored)
    return Trial(run, run, traffic, stored, problem.case.slots, backend=table.backend, note="dense and mask")
