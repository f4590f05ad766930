"""Dynamic sparse learning (DSL, arXiv 2402.02855): sparse from the first step, the mask moves while training.

At every update the `r` smallest kept weights leave and the `r` slots with the largest loss gradient enter, at weight 0
with no state. r = ceil(alpha_t nnz), alpha_t = ratio_min + (ratio - ratio_min) (1 + cos(pi t / T)) / 2, where t
counts steps and T is the last step that may update.

Mode `faithful` follows the published method: a mask drawn uniformly at random, growth scored on the last mini-batch,
updates to the end of training. Three differences are deliberate: the first mask has exactly the budgeted size, where
the original draws each slot independently; a slot dropped by an update cannot re-enter in the same update, and where
fewer slots have a gradient than r, only as many are dropped as enter, where the original fills up in sort order; and
gradients are taken after the step on the last mini-batch, where the original reuses those of before it.

Mode `fresh` starts from equal columns a row, so that users and items share columns at once, and scores growth on many
fresh triples, so that every row of the table is a candidate. The mask is fixed for the last part of training.

Mode `rotate` keeps the budget but searches in rounds, see `recsparse.policies.rotation`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from recsparse import ops
from recsparse.budget import plan_sparse
from recsparse.config import Config, DslConfig
from recsparse.errors import UserError
from recsparse.models import Triples
from recsparse.policies.base import Context, Policy, Stage
from recsparse.policies.rotation import rotate
from recsparse.spans import span
from recsparse.table import PackedTable

MODES: dict[str, dict[str, Any]] = {
    "faithful": {
        "start": "bernoulli",
        "every": "3000 steps",
        "ratio": 0.5,
        "ratio_min": 0.005,
        "stop_at": 1.0,
        "grow": "last_batch",
        "grow_triples": 300_000,
    },
    "fresh": {
        "start": "prefix",
        "every": "1 epoch",
        "ratio": 0.1,
        "ratio_min": 0.005,
        "stop_at": 0.75,
        "grow": "fresh",
        "grow_triples": 300_000,
    },
    "rotate": {"start": "prefix", "ratio": 0.3, "rounds": 10, "round_epochs": 12},
}


@dataclass(frozen=True)
class Schedule:
    """When the mask is updated, and by how much.

    Attributes:
        every: steps between two updates.
        last_step: the last step that an update may follow.
        ratio: share replaced at step 0.
        ratio_min: share replaced at `last_step`.
    """

    every: int
    last_step: int
    ratio: float
    ratio_min: float

    def due(self, step: int) -> int | None:
        """The first update after `step`."""
        update = (step // self.every + 1) * self.every
        return update if update <= self.last_step else None

    def share(self, step: int) -> float:
        """Share of the kept weights that the update at `step` replaces."""
        phase = math.cos(math.pi * step / self.last_step)
        return self.ratio_min + 0.5 * (self.ratio - self.ratio_min) * (1.0 + phase)


def parse_period(text: str, steps_per_epoch: int) -> int:
    """Steps in `3000 steps` or `0.5 epochs`, at least 1."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?)\s*", text)
    if match is None or float(match.group(1)) <= 0:
        raise UserError(f"policy.dsl.every is {text!r}; expected a time as `3000 steps` or `0.5 epochs`")
    unit = steps_per_epoch if match.group(2).startswith("epoch") else 1
    return max(1, round(float(match.group(1)) * unit))


def fill_in(options: DslConfig) -> DslConfig:
    """`options` with empty ones set to the mode's."""
    defaults = {key: value for key, value in MODES[options.mode].items() if getattr(options, key) is None}
    return dataclasses.replace(options, **defaults)


class DslStage(Stage):
    """Training with mask updates."""

    def __init__(self, context: Context, table: PackedTable) -> None:
        train = context.config.train
        super().__init__("train", table, context.optimizer(table), train.epochs, train.patience)
        options = context.config.policy.dsl
        self.context = context
        self.options = options
        self.schedule = Schedule(
            every=parse_period(str(options.every), context.steps_per_epoch),
            last_step=int(float(options.stop_at or 0) * context.total_steps),
            ratio=float(options.ratio or 0),
            ratio_min=float(options.ratio_min or 0),
        )
        self.dropped = 0
        self.grown = 0

    def prune_due(self, step: int) -> int | None:
        return self.schedule.due(step)

    def prune(self, step: int, last_batch: Triples) -> None:
        wanted = min(math.ceil(self.schedule.share(step) * self.table.nnz), self.options.max_candidates)
        # A start with equal columns a row may leave a few weights of the capacity unused: growth takes those too.
        room = self.table.capacity - self.table.nnz
        triples = last_batch
        if self.options.grow == "fresh":
            count = min(int(self.options.grow_triples or 1), self.context.triples_per_epoch)
            triples = self.context.draw_fresh(step // self.schedule.every, count)
        with span("grow_scores"):
            keys, scores = self.context.model.grow_scores(self.table, triples, limit=wanted + room)
        with span("prune_regrow"):
            dropped, grown = ops.prune_regrow_(
                self.table, self.optimizer.weight_state, keys, scores, drop=wanted, grow=wanted + room
            )
        self.dropped += dropped
        self.grown += grown

    def after_epoch(self, epoch: int) -> dict[str, float]:
        return {"dropped": self.dropped, "grown": self.grown}

    def state_dict(self) -> dict[str, Any]:
        return {"dropped": self.dropped, "grown": self.grown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dropped = state["dropped"]
        self.grown = state["grown"]


class Dsl(Policy):
    """Dynamic sparse learning; see the module's description."""

    name = "dsl"

    @classmethod
    def resolve(cls, config: Config) -> Config:
        policy = dataclasses.replace(config.policy, dsl=fill_in(config.policy.dsl))
        return dataclasses.replace(config, policy=policy)

    def stage(self, number: int, previous: PackedTable | None) -> Stage | None:
        rounds = self.context.config.policy.dsl.rounds or 0
        if number > rounds:
            return None
        table = self._first_table() if previous is None else self._next_table(previous, number)
        if number < rounds:
            return self._round(table, number)
        if rounds:
            train = self.context.config.train
            return Stage("train", table, self.context.optimizer(table), train.epochs, train.patience)
        return DslStage(self.context, table)

    def _first_table(self) -> PackedTable:
        config = self.context.config
        plan = plan_sparse(config.policy, self.context.model.rows, config.model.dim, config.model.dtype)
        return self.context.table(plan, str(config.policy.dsl.start))

    def _next_table(self, previous: PackedTable, number: int) -> PackedTable:
        config = self.context.config
        with span("rotate"):
            rotate(
                previous,
                number,
                share=float(config.policy.dsl.ratio or 0),
                seed=config.train.seed,
                std=config.model.init_std,
                limit=config.policy.dsl.max_candidates,
            )
        return previous

    def _round(self, table: PackedTable, number: int) -> Stage:
        epochs = int(self.context.config.policy.dsl.round_epochs or 1)
        # Two names in turn: the table that a round started from must outlive the round, to resume it.
        artefact = f"round-{number % 2}"
        return Stage(f"round {number}", table, self.context.optimizer(table), epochs, patience=0, artefact=artefact)
