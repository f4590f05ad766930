"""Budgeted embedding tables (BET, WSDM 2024): a size for every row, searched for under a strict budget.

Row n keeps its first d_n columns, so that the index is a length a row. Stages:

1. pre-training of the full table, d_max = model.dim columns;
2. T iterations: of m actions (sizes for all rows, `recsparse.policies.bet_sampler`) one is chosen, the pre-trained
   table is cut to it and fine-tuned for a few epochs. Its fitness is its quality as a share of the pre-trained table's,
   both on the split that selects, quality being the mean of (recall@k + ndcg@k) / 2 over k = 5, 10, 20. The predictor
   (`recsparse.policies.bet_fitness`) then learns from N actions drawn from all seen so far. The choice at iteration
   t = 1, 2, .. is the action of highest predicted fitness, but at random for t mod 5 = 3, and for t mod 5 = 4 the one
   that the predictor embeds nearest to the fittest so far;
3. the fittest actions are trained from new weights, and the one that is best on the split that selects is tested.

`bet_random` chooses at random throughout and needs no predictor: what the prior of the sampler, sizes that follow
frequency, is worth without the search.

All of 2 and 3 is packed: weights, gradients and moments exist for what an action keeps, where the published code
multiplies full tables by a mask. The paper retrains five actions, its code three.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recsparse.budget import plan_dense, plan_sparse
from recsparse.config import BetConfig, Config
from recsparse.errors import UserError
from recsparse.policies.base import Context, Policy, Stage
from recsparse.policies.bet_fitness import FitnessPredictor, ranges
from recsparse.policies.bet_sampler import Action, ActionSampler
from recsparse.spans import span
from recsparse.table import DTYPES, PackedTable

CUT_OFFS = (5, 10, 20)
PRETRAINED, FINE_TUNED = "pretrained", "fine-tuned"
# Draws the pairs that an update of the predictor learns from, where numbers below it draw actions.
UPDATES = 1 << 32


class Trial(NamedTuple):
    """An action that was chosen, by its number among those of its iteration, and its fitness; None while unknown."""

    number: int
    fitness: float | None


def quality(metrics: dict[str, float]) -> float:
    """The mean of recall and ndcg over the cut-offs."""
    return sum(metrics[f"{name}@{k}"] for name in ("recall", "ndcg") for k in CUT_OFFS) / (2 * len(CUT_OFFS))


def kept_slots(sizes: torch.Tensor, dim: int) -> torch.Tensor:
    """Places in a full table, row by row, of the first `sizes` [rows] columns of every row; int64 [sum of sizes]."""
    ends = sizes.cumsum(0)
    shift = torch.arange(len(sizes), device=sizes.device) * dim - (ends - sizes)
    return torch.arange(int(ends[-1]), device=sizes.device) + shift.repeat_interleave(sizes)


class Pretraining(Stage):
    """Of the full table; its best table's quality is what fitness is a share of."""

    policy: Bet

    def after_eval(self, epoch: int, metrics: dict[str, float]) -> bool:
        self.policy.pretrained(metrics)
        return False


class FineTuning(Stage):
    """Of the action of one iteration, from the pre-trained weights."""

    policy: Bet

    def after_eval(self, epoch: int, metrics: dict[str, float]) -> bool:
        self.policy.measured(metrics)
        return False


class Bet(Policy):
    """Search for sizes, guided by a predictor; see the module's description."""

    name = "bet"
    guided: ClassVar[bool] = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        config, model = context.config, context.model
        self.options: BetConfig = config.policy.bet
        frequencies = context.frequencies()
        plan = plan_sparse(config.policy, model.rows, config.model.dim, config.model.dtype, kinds=("prefix",))
        self.sampler = ActionSampler(model.n_users, model.n_items, config.model.dim, plan.capacity, config.train.seed)
        # Most frequent first; of equal ones the lower id.
        self.by_rank = tuple(np.argsort(-each, kind="stable") for each in frequencies)
        self.sorted = frequencies[0][self.by_rank[0]], frequencies[1][self.by_rank[1]]
        self.best_recall, self.full_quality = -1.0, 0.0
        self.trials: list[Trial] = []
        self._predictor: FitnessPredictor | None = None
        self._learned = 0
        self._seen: dict[int, NDArray[np.int64]] = {}

    @classmethod
    def resolve(cls, config: Config) -> Config:
        if not config.train.checkpoint:
            raise UserError(f"policy {cls.name} cuts a saved table; leave train.checkpoint at true")
        if config.policy.kind != "auto":
            raise UserError(f"policy {cls.name} stores kind prefix; leave policy.kind at auto")
        return config

    def stage(self, number: int, previous: PackedTable | None) -> Stage | None:
        iterations = self.options.iterations
        if number == 0:
            return self._pretraining()
        if number <= iterations:
            return self._fine_tuning(number)
        if number <= iterations + self.options.retrain:
            return self._retraining(number - iterations)
        return None

    def winner(self, found: dict[str, float]) -> str:
        names = [_retrained(place) for place in range(1, self.options.retrain + 1)]
        return max(names, key=lambda name: found[name])

    def pretrained(self, metrics: dict[str, float]) -> None:
        """An evaluation of the full table: the best one counts, by the metric that the trainer keeps tables by."""
        if metrics["recall@20"] > self.best_recall:
            self.best_recall, self.full_quality = metrics["recall@20"], quality(metrics)

    def measured(self, metrics: dict[str, float]) -> None:
        """The evaluation of the action that was fine-tuned."""
        if self.full_quality <= 0:
            raise UserError("the pre-trained table finds nothing that is looked for; raise train.epochs or optim.lr")
        self.trials[-1] = Trial(self.trials[-1].number, quality(metrics) / self.full_quality)

    def fittest(self, before: int) -> list[int]:
        """Iterations below `before`, highest fitness first (equal: the earlier one)."""
        return sorted(range(1, before), key=lambda iteration: -self._fitness(iteration))

    def sizes(self, action: Action) -> torch.Tensor:
        """Sizes by row, int64 [rows]."""
        users, items = self.by_rank
        sizes = torch.empty(len(users) + len(items), dtype=torch.int64)
        sizes[torch.from_numpy(users)] = torch.from_numpy(action.users).long()
        sizes[torch.from_numpy(items) + len(users)] = torch.from_numpy(action.items).long()
        return sizes

    def state_dict(self) -> dict[str, Any]:
        return {"best_recall": self.best_recall, "full_quality": self.full_quality, "trials": [*map(list, self.trials)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_recall, self.full_quality = state["best_recall"], state["full_quality"]
        self.trials = [Trial(*trial) for trial in state["trials"]]

    def _pretraining(self) -> Stage:
        config = self.context.config
        plan = plan_dense(self.context.model.rows, config.model.dim, config.model.dtype)
        table = self.context.table(plan, "full")
        stage = Pretraining(
            "pre-training",
            table,
            self.context.optimizer(table),
            config.train.epochs,
            config.train.patience,
            artefact=PRETRAINED,
            ks=CUT_OFFS,
        )
        stage.policy = self
        return stage

    def _fine_tuning(self, iteration: int) -> Stage:
        if len(self.trials) < iteration:
            with span("choose"):
                self.trials.append(Trial(self._choose(iteration), None))
        full = self.context.load(PRETRAINED)
        table = self._table(self._action(iteration))
        table.values.copy_(full.values[kept_slots(table.row_counts(), table.dim)])
        epochs = self.options.finetune_epochs
        stage = FineTuning(
            f"search {iteration}",
            table,
            self.context.optimizer(table),
            epochs,
            patience=0,
            artefact=FINE_TUNED,
            ks=CUT_OFFS,
            eval_every=epochs,
            lr=self.options.finetune_lr or 0.0,
        )
        stage.policy = self
        return stage

    def _retraining(self, place: int) -> Stage:
        train = self.context.config.train
        table = self._table(self._action(self.fittest(self.options.iterations + 1)[place - 1]))
        table.reset_values_(train.seed, self.context.config.model.init_std)
        optimizer = self.context.optimizer(table)
        name = _retrained(place)
        return Stage(name, table, optimizer, train.epochs, train.patience, artefact=name)

    def _table(self, action: Action) -> PackedTable:
        model, device = self.context.config.model, self.context.config.train.device
        return PackedTable.from_sizes(self.sizes(action).to(device), model.dim, dtype=DTYPES[model.dtype])

    def _action(self, iteration: int) -> Action:
        return self.sampler.draw(iteration, self.trials[iteration - 1].number)

    def _fitness(self, iteration: int) -> float:
        fitness = self.trials[iteration - 1].fitness
        assert fitness is not None
        return fitness

    def _choose(self, iteration: int) -> int:
        """Number of the action of an iteration. All are random: the first one is a random choice."""
        if not self.guided or iteration % 5 == 3:
            return 0
        predictor = self._predictor_before(iteration)
        drawn = (self.sampler.draw(iteration, number) for number in range(self.options.actions))
        actions = [ranges(action, self.sampler.largest) for action in drawn]
        if iteration % 5 == 4:
            best = self.fittest(iteration)[0]
            return int(np.argmin(predictor.distances(actions, self._ranges_of(best))))
        return int(np.argmax(predictor.scores(actions)))

    def _predictor_before(self, iteration: int) -> FitnessPredictor:
        """The predictor after the updates of all earlier iterations, which a resumed run makes again."""
        if self._predictor is None:
            seed = self.context.config.train.seed
            self._predictor = FitnessPredictor(self.sorted, self.sampler.largest, seed)
        for done in range(self._learned + 1, iteration):
            source = np.random.default_rng([self.sampler.seed, done, UPDATES])
            for chosen in source.integers(1, done, size=self.options.updates, endpoint=True):
                self._predictor.update(self._ranges_of(int(chosen)), self._fitness(int(chosen)))
        self._learned = iteration - 1
        return self._predictor

    def _ranges_of(self, iteration: int) -> NDArray[np.int64]:
        """What the predictor sees of the action of an iteration."""
        if iteration not in self._seen:
            self._seen[iteration] = ranges(self._action(iteration), self.sampler.largest)
        return self._seen[iteration]


class BetRandom(Bet):
    """The same stages with actions chosen at random."""

    name = "bet_random"
    guided = False


def _retrained(place: int) -> str:
    """Stage and artefact of the action of that place among the fittest."""
    return f"retraining-{place}"
