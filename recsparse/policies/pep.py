"""PEP: thresholds that learn with a dense table until few enough weights are above them, then training of those alone.

The search trains sign(v) max(|v| - sigmoid(s), 0); see `recsparse.optim.thresholds` for what moves s. Every
`check_every` steps the weights above their thresholds are counted. At the first count that is not above a target the
mask is the target's number of weights of the largest |v| - sigmoid(s), to the weight: where the count has overshot, the
last that died are among them. Each mask is then trained from the initial weights, packed.

Stages: the search, then a retraining for each target.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from recsparse import ops
from recsparse.budget import TablePlan, plan_dense, plan_sparse
from recsparse.config import Config, PepConfig
from recsparse.errors import UserError
from recsparse.models import Model, Triples
from recsparse.optim.thresholds import ThresholdedAdam
from recsparse.policies.base import Context, Policy, Stage
from recsparse.table import DTYPES, PackedTable

ROWS_AT_ONCE = 1 << 14


class Search(Stage):
    """Trains the thresholded table, and leaves a mask for each target as it is reached."""

    optimizer: ThresholdedAdam
    plans: list[TablePlan]
    context: Context
    check_every: int
    trim: bool
    found: int = 0
    kept: int = -1

    def train_(self, model: Model, triples: Triples, batch_size: int) -> Tensor:
        return model.train_rows_(self.optimizer, triples, batch_size)

    def prune_due(self, step: int) -> int | None:
        return (step // self.check_every + 1) * self.check_every

    def prune(self, step: int, last_batch: Triples) -> None:
        self._take_masks()

    def _take_masks(self) -> None:
        self.kept = count_above(self.optimizer)
        while not self.finished() and self.kept <= self.plans[self.found].capacity:
            self._take_mask()

    def _take_mask(self) -> None:
        self.context.save(artefact_of(self.found), masked(self.optimizer, self.plans[self.found], self.context))
        self.found += 1

    def finished(self) -> bool:
        return self.found == len(self.plans)

    def after_epoch(self, epoch: int) -> dict[str, float]:
        slots = self.table.rows * self.table.dim
        if not self.finished():  # an epoch may be shorter than the time between two counts
            self._take_masks()
        while epoch == self.epochs and self.trim and not self.finished():
            self._take_mask()
        if epoch == self.epochs and not self.finished():
            target = self.plans[self.found].capacity / slots
            raise UserError(
                f"policy pep: density is {self.kept / slots:.4f} after {epoch} epochs of search, above the target "
                f"{target:.4f}; raise policy.pep.epochs or policy.pep.lr, start nearer to 0 (policy.pep.start), or "
                "leave policy.pep.trim at true"
            )
        return {"density": self.kept / slots, "threshold": float(self.optimizer.thresholds.values.mean().sigmoid())}

    def state_dict(self) -> dict[str, Any]:
        return {"found": self.found, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.found, self.kept = state["found"], state["kept"]


class Pep(Policy):
    """Learned pruning thresholds (Liu et al., ICLR 2021, arXiv 2101.07577); see the module's description."""

    name = "pep"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        config = context.config
        self.options: PepConfig = config.policy.pep
        plan = plan_sparse(config.policy, context.model.rows, config.model.dim, config.model.dtype)
        self.plans = [*larger_targets(context, plan), plan]

    @classmethod
    def resolve(cls, config: Config) -> Config:
        if not config.train.checkpoint:
            raise UserError("policy pep hands its masks on through checkpoints; leave train.checkpoint at true")
        return config

    def stage(self, number: int, previous: PackedTable | None) -> Stage | None:
        if number == 0:
            return self._search()
        if number > len(self.plans):
            return None
        config, last = self.context.config, number == len(self.plans)
        table = self.context.load(artefact_of(number - 1))
        train = config.train
        stage = Stage(f"target {number}", table, self.context.optimizer(table), train.epochs, train.patience)
        stage.artefact = "best" if last else f"target-{number}"
        stage.ticket = f"ticket-{number:02d}"
        stage.reported = True
        return stage

    def _search(self) -> Search:
        config, model = self.context.config, self.context.model
        table = self.context.table(plan_dense(model.rows, config.model.dim), "full")
        optim, own = config.optim, self.options
        optimizer = ThresholdedAdam(
            table,
            granularity=own.granularity,
            start=own.start,
            threshold_lr=own.lr,
            threshold_decay=own.weight_decay,
            lr=optim.lr,
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=own.table_weight_decay,
            lazy=optim.lazy and own.table_weight_decay == 0,
        )
        stage = Search("search", table, optimizer, own.epochs, 0, artefact_of(len(self.plans) - 1))
        stage.keep, stage.evaluated = "itself", False
        stage.plans, stage.context, stage.check_every = self.plans, self.context, own.check_every
        stage.trim = own.trim
        return stage


def artefact_of(target: int) -> str:
    """Checkpoint of the mask of a target, with the initial weights."""
    return f"mask-{target}"


def larger_targets(context: Context, last: TablePlan) -> list[TablePlan]:
    """Plans of `policy.pep.targets`, the largest first; `last` is the one that they lead to.

    Raises:
        UserError: one that is not a size, or not above `policy.budget` or `policy.density`.
    """
    policy, model = context.config.policy, context.config.model
    plans = []
    for text in (part.strip() for part in policy.pep.targets.split(",") if part.strip()):
        if policy.density is not None:
            try:
                density = float(text)
            except ValueError:
                density = -1.0
            if not policy.density < density <= 1:
                raise UserError(
                    f"policy.pep.targets has {text!r}; expected a density above policy.density {policy.density}"
                )
            wanted = dataclasses.replace(policy, density=density)
        else:
            wanted = dataclasses.replace(policy, budget=text)
        plans.append(plan_sparse(wanted, context.model.rows, model.dim, model.dtype))
    plans.sort(key=lambda plan: -plan.capacity)
    if plans and plans[-1].capacity <= last.capacity:
        raise UserError(f"policy.pep.targets {policy.pep.targets} must be above policy.budget {policy.budget}")
    return plans


def margins(optimizer: ThresholdedAdam) -> Iterator[tuple[int, Tensor]]:
    """(first row, |v| - sigmoid(s)) of blocks of rows, in order: never all of it."""
    values, thresholds = optimizer.dense
    for begin in range(0, len(values), ROWS_AT_ONCE):
        own = thresholds[begin : begin + ROWS_AT_ONCE] if len(thresholds) > 1 else thresholds
        yield begin, values[begin : begin + ROWS_AT_ONCE].abs() - own.sigmoid()


def count_above(optimizer: ThresholdedAdam) -> int:
    """Weights above their thresholds."""
    return sum(int((margin > 0).sum()) for _, margin in margins(optimizer))


def largest(optimizer: ThresholdedAdam, count: int) -> Tensor:
    """bool [rows, dim]: the `count` largest margins; of equal ones those with the lower flat index.

    Three passes that count 11, 11 and 10 bits of the margins' order find the smallest that stays.
    """
    prefix, wanted = 0, count
    for shift, bits in ((21, 11), (10, 11), (0, 10)):
        counts = torch.zeros(1 << bits, dtype=torch.int64)
        for _, margin in margins(optimizer):
            keys = ordered(margin)
            part = (keys[keys >> (shift + bits) == prefix] >> shift) & ((1 << bits) - 1)
            counts += torch.bincount(part, minlength=1 << bits).cpu()
        above = counts.flip(0).cumsum(0).flip(0) - counts  # in the bins behind
        at = int(((above < wanted) & (above + counts >= wanted)).nonzero()[0])
        wanted -= int(above[at])
        prefix = prefix << bits | at
    mask = torch.empty(
        optimizer.table.rows, optimizer.table.dim, dtype=torch.bool, device=optimizer.thresholds.values.device
    )
    for begin, margin in margins(optimizer):
        keys = ordered(margin)
        ties = (keys == prefix).view(-1)
        taken = ties & (ties.cumsum(0) <= wanted)
        wanted -= int(taken.sum())
        mask[begin : begin + len(margin)] = (keys > prefix) | taken.view_as(keys)
    return mask


def ordered(x: Tensor) -> Tensor:
    """int64 from 0 to 2^32 - 1 in the order of finite float32 `x`."""
    bits = x.contiguous().view(torch.int32).long()
    return torch.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits) + (1 << 31)


def masked(optimizer: ThresholdedAdam, plan: TablePlan, context: Context) -> PackedTable:
    """The initial weights under the mask of a plan's size."""
    table, config = optimizer.table, context.config
    dense, _ = optimizer.dense
    mask = largest(optimizer, plan.capacity)
    packed = ops.pack(dense.to(DTYPES[plan.dtype]), mask, plan.kind, plan.capacity, backend=table.backend)
    small = PackedTable(plan.rows, plan.dim, plan.kind, *packed, table.backend)
    small.reset_values_(config.train.seed, config.model.init_std)
    return small
