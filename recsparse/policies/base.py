"""What a policy is to the trainer: a sequence of stages.

The trainer knows stages only. A method that trains once is one stage; rounds of pruning, or a search followed by
retraining, are several. Hooks of a stage may change its table between two mini-batches, and only there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsparse.budget import TablePlan
from recsparse.config import Config
from recsparse.int8 import Int8Table
from recsparse.models import Model, Triples
from recsparse.optim import OPTIMIZERS, SGD, Adam, TableOptimizer
from recsparse.table import DTYPES, PackedTable


@dataclass(frozen=True)
class Context:
    """What policies may know of a run.

    Attributes:
        config: the run's configuration, resolved.
        model: computes growth scores.
        steps_per_epoch: mini-batches of an epoch.
        triples_per_epoch: triples of an epoch, |train|.
        draw_fresh: `draw_fresh(update, count)` gives `count` training triples that no mini-batch sees, the same for the
            same `update` number.
        load: `load(artefact)` gives the table that an earlier stage left under that name.
        save: `save(artefact, table)` leaves a table under that name, for stages that choose it themselves.
        frequencies: `frequencies()` gives the train interactions of each user and of each item, int64; raises
            `UserError` where nobody counts them.
    """

    config: Config
    model: Model
    steps_per_epoch: int
    triples_per_epoch: int
    draw_fresh: Callable[[int, int], Triples]
    load: Callable[[str], PackedTable]
    save: Callable[[str, PackedTable], None]
    frequencies: Callable[[], tuple[NDArray[np.int64], NDArray[np.int64]]]

    def optimizer(self, table: PackedTable) -> TableOptimizer:
        """The configured optimiser, with fresh state."""
        options = self.config.optim
        chosen = OPTIMIZERS[options.name]
        common: dict[str, Any] = {"lr": options.lr, "seed": self.config.train.seed}
        if chosen is not SGD:
            common["eps"] = options.eps
        if chosen is Adam:
            common["betas"] = options.betas
            common["lazy"] = options.lazy
        return chosen(table, **common)

    def table(self, plan: TablePlan, start: str) -> PackedTable:
        """A fresh table of the planned shape; `start` as in `PackedTable.init`."""
        return PackedTable.init(
            plan.rows,
            plan.dim,
            kind=plan.kind,
            capacity=plan.capacity,
            start=start,
            seed=self.config.train.seed,
            std=self.config.model.init_std,
            dtype=DTYPES[plan.dtype],
            device=self.config.train.device,
        )

    @property
    def total_steps(self) -> int:
        return self.config.train.epochs * self.steps_per_epoch


@dataclass
class Stage:
    """One training run inside a policy; subclasses override the hooks that they need.

    Attributes:
        name: shown in logs.
        table: starting weights, with their mask.
        optimizer: its state.
        epochs: the most epochs to train; 0 = none: the table is evaluated as it is.
        patience: evaluations without a better metric before the stage ends; 0 = never.
        artefact: name of the checkpoint that keeps the stage's best table; the one that `Policy.winner` names is
            tested, and is `best` in the end. Another name for each stage before that.
        keep: which table the artefact is: the `best` on the split that selects, the `last`, or the one that the stage
            saves `itself`.
        evaluated: whether its table is what a model would serve; a stage that searches may have none.
        ticket: name of a checkpoint of the starting weights and their mask, that stays; empty = none.
        reported: whether what the stage leaves is tested and gets a row of its own in metrics.jsonl.
        ks: cut-offs of its evaluations beside 20.
        eval_every: epochs between two evaluations; 0 = train.eval_every.
        lr: learning rate, at first where there is a schedule; 0 = optim.lr.
    """

    name: str
    table: PackedTable
    optimizer: TableOptimizer
    epochs: int
    patience: int
    artefact: str = "best"
    keep: str = "best"
    ticket: str = ""
    reported: bool = False
    evaluated: bool = True
    ks: tuple[int, ...] = ()
    eval_every: int = 0
    lr: float = 0.0

    def train_(self, model: Model, triples: Triples, batch_size: int) -> Tensor:
        """Consecutive mini-batch steps on `triples`; returns the mean loss of each, float32 [n_batches]."""
        return model.train_(self.table, self.optimizer, triples, batch_size)

    def finished(self) -> bool:
        """Asked after each `prune` and `after_epoch`; True ends the stage."""
        return False

    def prune_due(self, step: int) -> int | None:
        """Number of the first step after `step` that `prune` must follow; None: never again."""
        return None

    def prune(self, step: int, last_batch: Triples) -> None:
        """Changes the mask after step `step` (counted from 1 in the stage), the one that trained on `last_batch`."""

    def after_step(self, step: int) -> None:
        """Called when steps up to `step` are done: after each chunk of steps, and always before `prune`."""

    def after_epoch(self, epoch: int) -> dict[str, float]:
        """Called after each epoch (from 1), before its evaluation; returns figures for its log line."""
        return {}

    def after_eval(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Called after each evaluation; True ends the stage."""
        return False

    def stored(self) -> PackedTable | Int8Table:
        """What the artefact holds and whose bytes count: the table, or a form of it that is smaller."""
        return self.table

    def state_dict(self) -> dict[str, Any]:
        """Plain values (JSON) that `load_state_dict` needs to go on from here; table and optimiser are kept apart."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""


class Policy(ABC):
    """Yields stages. An instance belongs to one run."""

    name: ClassVar[str]
    sized: ClassVar[bool] = True  # whether policy.budget or policy.density says how large its table is

    def __init__(self, context: Context) -> None:
        self.context = context

    @classmethod
    def resolve(cls, config: Config) -> Config:
        """`config` with this policy's open options filled in."""
        return config

    @abstractmethod
    def stage(self, number: int, previous: PackedTable | None) -> Stage | None:
        """Stage `number` (from 0), or None when there are no more.

        Args:
            number: stages are asked for in order; a resumed run starts at the one that was interrupted.
            previous: the table that stage `number - 1` left; None for the first.

        Raises:
            UserError: the configured size is impossible for this data set.
        """

    def winner(self, found: dict[str, float]) -> str:
        """Which artefact is tested: by default that of the last stage.

        Args:
            found: the best metric on the split that selects, by the artefacts of all stages, in order.
        """
        return list(found)[-1]

    def state_dict(self) -> dict[str, Any]:
        """Plain values (JSON) that the policy carries from stage to stage; in every checkpoint and in the final row."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, before `stage` is asked for the stage that was interrupted."""
        if state:
            raise ValueError(f"policy {self.name} carries no state, found {', '.join(state)}")
