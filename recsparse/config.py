"""Configuration of a run: plain dataclasses, and what their values may be. `recsparse.config_reader` reads them."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from recsparse.errors import UserError

# Far more than helps; OpenMP ends the process where the system refuses it a thread.
MAX_THREADS = 4096


@dataclass
class DataConfig:
    """Which interactions, and which split selects the model.

    Attributes:
        path: folder with train.txt and test.txt (one line a user: `user item item ...`), or the name of a generated
            preset.
        protocol: valid = select on held-out train items, touch test once; paper = select on test, as papers' code did.
        valid_fraction: share of each user's train items held out under `valid` when the folder ships no valid.txt.
        split_seed: seed of that held-out split; independent of train.seed.
        eval_users: users that an evaluation on a streamed preset ranks for; all users count on other data.
    """

    path: str = ""
    protocol: Literal["valid", "paper"] = "valid"
    valid_fraction: float = 0.1
    split_seed: int = 0
    eval_users: int = 10_000


@dataclass
class ModelConfig:
    """Which recommender.

    Attributes:
        name: mf = matrix factorisation, score = user vector . item vector; lightgcn = the same, of rows averaged over
            layers of propagation over the train interactions.
        dim: columns of the table (1 to 256).
        layers: layers of propagation of lightgcn (1 to 64).
        hidden: type of the propagated rows of lightgcn in training; bfloat16 halves their memory.
        init_std: standard deviation of the initial weights.
        dtype: type that the weights are stored in. Those of 16 bits are computed with in float32 and rounded
            stochastically when they are updated; optimiser state stays float32.
    """

    name: Literal["mf", "lightgcn"] = "mf"
    dim: int = 64
    layers: int = 3
    hidden: Literal["float32", "bfloat16"] = "float32"
    init_std: float = 0.01
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"


@dataclass
class DslConfig:
    """Options of the policy `dsl`; an option left empty takes the value of the mode.

    Attributes:
        mode: faithful = as published; fresh = equal columns a row at first, growth scored on many fresh triples;
            rotate = prune-and-rewind rounds within the budget, then train.epochs of training.
        start: first mask: bernoulli = uniform at random, prefix = the first columns of every row.
        every: time between two mask updates, as `3000 steps` or `0.5 epochs`.
        ratio: share of the kept weights replaced by the first update, or by each round of rotate (0 to 1).
        ratio_min: the same for the last update; cosine between the two.
        stop_at: share of training after which the mask is fixed (0 to 1).
        grow: triples that score growth: last_batch = of the last mini-batch, fresh = drawn for the update.
        grow_triples: number of triples drawn when grow is fresh, at most those of an epoch.
        rounds: rounds before the last training (rotate).
        round_epochs: epochs of a round (rotate).
        max_candidates: bound of the candidate store, 12 bytes each; an update never replaces more weights than this.
    """

    mode: Literal["faithful", "fresh", "rotate"] = "rotate"
    start: Literal["bernoulli", "prefix"] | None = None
    every: str | None = None
    ratio: float | None = None
    ratio_min: float | None = None
    stop_at: float | None = None
    grow: Literal["last_batch", "fresh"] | None = None
    grow_triples: int | None = None
    rounds: int | None = None
    round_epochs: int | None = None
    max_candidates: int = 4_000_000


@dataclass
class LthConfig:
    """Options of the policy `lth`.

    Attributes:
        rate: share of the weights that are left which leaves after each round (0 to 1).
        rounds: rounds after the full table; empty = as many as policy.budget or policy.density needs.
        scope: joint = one threshold for users and items, both = one for each, user / item = of that part alone.
        rewind: where the kept weights go after a round: init, `3 epochs` or `500 steps` = where they were after so
            many, random = new ones (control), none = they stay (control).
        criterion: magnitude, or random = any weights leave (control).
        one_shot: prune once, from the full table to the last density (control).
        prune_from: best = the table that was best on the split that selects, last = of the last epoch.
    """

    rate: float = 0.1
    rounds: int | None = None
    scope: Literal["joint", "both", "user", "item"] = "joint"
    rewind: str = "init"
    criterion: Literal["magnitude", "random"] = "magnitude"
    one_shot: bool = False
    prune_from: Literal["best", "last"] = "best"


@dataclass
class PepConfig:
    """Options of the policy `pep`.

    Attributes:
        granularity: what shares a threshold: global = everything, dim = a column, row, element = nothing.
        start: all thresholds at first; a weight is pruned below sigmoid(threshold).
        lr: learning rate of the thresholds: about what each moves towards 0 in a step.
        weight_decay: L2 penalty of the thresholds, which is what moves them. Gradients of the loss add up in a
            threshold that many weights share and hold it back: global and dim need more than row and element, 0.01 to
            1.
        table_weight_decay: the same of all weights in every step of the search, as published: rows that are rarely
            drawn shrink, and are pruned first. Above 0 the optimiser of the search is not lazy.
        epochs: the most epochs of search.
        trim: true = a target that the search has not reached by then is cut from where it is, by the largest distances
            above the thresholds; false = it is an error.
        check_every: steps between two counts of the weights above their thresholds.
        targets: larger sizes that are met on the way, separated by commas, each retrained and reported too: budgets or
            densities, as the last one is given.
    """

    granularity: Literal["global", "dim", "row", "element"] = "element"
    start: float = -15.0
    lr: float = 1e-3
    weight_decay: float = 1e-5
    table_weight_decay: float = 1e-5
    epochs: int = 60
    trim: bool = True
    check_every: int = 50
    targets: str = ""


@dataclass
class BetConfig:
    """Options of the policies `bet` and `bet_random`.

    Attributes:
        iterations: T, fine-tunings of the search.
        actions: m, candidates that the predictor chooses from in each iteration (bet).
        finetune_epochs: epochs of a fine-tuning.
        finetune_lr: learning rate of a fine-tuning; empty = optim.lr.
        updates: N, updates of the predictor after each iteration (bet).
        retrain: the fittest actions that are trained from new weights, at most iterations.
    """

    iterations: int = 50
    actions: int = 100
    finetune_epochs: int = 10
    finetune_lr: float | None = None
    updates: int = 2
    retrain: int = 3


@dataclass
class PolicyConfig:
    """Which weights live.

    Attributes:
        name: dense = all of them, dense_fp16 and dense_int8 = the same, stored in 2 bytes and 1 byte a weight after
            training, small_dense = a narrower table of the same size, random_mask = a random choice, dsl = dynamic
            sparse training, lth = iterative pruning with rewinding, pep = learned pruning thresholds, bet = a searched
            size for every row, bet_random = the same without a predictor, ticket = the mask and start weights that a
            round of lth or pep left.
        kind: index of a sparse table; auto = the one that affords the most weights.
        budget: stored bytes of the table, values and index: a share of dense fp32 (`20%`) or absolute (`1.2GB`,
            `800MiB`).
        density: kept weights as a share of rows x dim (0 to 1); the alternative to budget.
        dsl: options of dsl.
        lth: options of lth.
        pep: options of pep.
        bet: options of bet and bet_random.
        ticket: folder of the ticket that the policy ticket trains (`--ticket DIR` sets both).
    """

    name: str = "dsl"
    kind: Literal["auto", "bits", "cols8"] = "auto"
    budget: str | None = None
    density: float | None = None
    dsl: DslConfig = field(default_factory=DslConfig)
    lth: LthConfig = field(default_factory=LthConfig)
    pep: PepConfig = field(default_factory=PepConfig)
    bet: BetConfig = field(default_factory=BetConfig)
    ticket: str = ""


@dataclass
class OptimConfig:
    """The optimiser of the touched rows, and the penalty of the loss.

    Attributes:
        name: bytes of state: adam 8 a kept weight, adagrad 4 a kept weight, rowwise_adagrad 4 a row, sgd none.
        lr: learning rate.
        schedule: constant, or cosine = from lr in a stage's first epoch down to lr_end in its last.
        lr_end: learning rate that cosine ends at.
        lazy: true = a mini-batch moves the rows that it touches, false = all kept weights, as dense optimisers of torch
            do: their moments decay and go on moving them. lightgcn always moves all.
        betas: decay of the first and second moments of adam.
        eps: added to the root of the second moment, or of the sum of squares of adagrad.
        l2: penalty lambda / 2 (|user|^2 + |positive|^2 + |negative|^2), mean over the mini-batch.
    """

    name: Literal["adam", "adagrad", "rowwise_adagrad", "sgd"] = "adam"
    lr: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    lr_end: float = 0.0
    lazy: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    l2: float = 1e-3


@dataclass
class TrainConfig:
    """How long, how often, how many.

    Attributes:
        epochs: epochs of |train| triples each.
        epoch_draws: triples of an epoch, if not |train|; 0 = |train|.
        batch_size: triples of a mini-batch.
        sampler: users = uniform user, then one of their items; interactions = shuffled train pairs.
        eval_every: epochs between two evaluations (a checkpoint follows each).
        patience: evaluations without a better recall@20 before training stops; 0 = never stop early.
        seed: seed of initial weights, masks and samples.
        threads: CPU threads; 0 = as many as there are cores. Results do not depend on it.
        check_invariants: verify after every chunk of steps that table and moments obey the budget (slow).
        checkpoint: save the last and the best state. Without, nothing can be resumed, the test is of the last epoch's
            table, and the run folder stays small.
        device: where table, optimiser state and interactions live and steps are taken: cpu or cuda.
    """

    epochs: int = 60
    epoch_draws: int = 0
    batch_size: int = 2048
    sampler: Literal["users", "interactions"] = "users"
    eval_every: int = 5
    patience: int = 5
    seed: int = 0
    threads: int = 0
    check_invariants: bool = False
    checkpoint: bool = True
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass
class RunConfig:
    """Where results go: FOLDER/NAME/ with config.yaml, metrics.jsonl, report.md and checkpoint/.

    Attributes:
        folder: parent of the run folders.
        name: name of the run; empty = data set, policy and a number.
    """

    folder: str = "runs"
    name: str = ""


@dataclass
class Config:
    """Everything a run depends on."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)


def from_dict(mapping: dict[str, Any]) -> Config:
    """Inverse of `to_dict`; keys that are no field of `Config` are left out."""
    return typing.cast(Config, _build(Config, mapping))


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain values, ready for YAML and JSON."""
    plain = dataclasses.asdict(config)
    plain["optim"]["betas"] = list(config.optim.betas)
    return plain


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def flatten(config: Config) -> dict[str, Any]:
    """Values by their full key, as `optim.lr`."""
    return {key: _value(config, key) for key in leaf_types()}


def validate(config: Config) -> None:
    """Checks of single values; what needs the data set is checked when the tables are planned."""
    optim, train, policy, dsl, bet = config.optim, config.train, config.policy, config.policy.dsl, config.policy.bet
    require = [
        ("data.valid_fraction", 0 < config.data.valid_fraction < 1, "between 0 and 1, both excluded"),
        ("model.dim", 1 <= config.model.dim <= 256, "from 1 to 256"),
        ("model.layers", 1 <= config.model.layers <= 64, "from 1 to 64"),
        ("model.init_std", 0 < config.model.init_std < 100, "above 0 and below 100"),
        ("optim.lr", 0 < optim.lr <= 10, "above 0, at most 10"),
        ("optim.lr_end", 0 <= optim.lr_end <= optim.lr, "from 0 to optim.lr"),
        ("optim.betas", all(0 <= beta < 1 for beta in optim.betas), "two numbers from 0 to below 1"),
        ("optim.eps", 0 < optim.eps < 1, "above 0, below 1"),
        ("optim.l2", 0 <= optim.l2 < 1e3, "0 or above"),
        ("train.epochs", train.epochs >= 1, "1 or above"),
        ("train.epoch_draws", 0 <= train.epoch_draws < 1 << 40, "from 0 to 2^40 - 1"),
        ("data.eval_users", config.data.eval_users >= 1, "1 or above"),
        ("train.batch_size", 1 <= train.batch_size <= 1 << 24, "from 1 to 16777216"),
        ("train.eval_every", train.eval_every >= 1, "1 or above"),
        ("train.patience", train.patience >= 0, "0 or above"),
        ("train.threads", 0 <= train.threads <= MAX_THREADS, f"from 0 to {MAX_THREADS}"),
        ("train.seed", 0 <= train.seed < 1 << 63, "from 0 to 2^63 - 1"),
        ("data.split_seed", 0 <= config.data.split_seed < 1 << 63, "from 0 to 2^63 - 1"),
        ("policy.density", policy.density is None or 0 < policy.density <= 1, "above 0, at most 1"),
        ("policy.lth.rate", 0 < policy.lth.rate < 1, "above 0, below 1"),
        ("policy.lth.rounds", policy.lth.rounds is None or 1 <= policy.lth.rounds <= 1000, "from 1 to 1000"),
        ("policy.pep.start", -200 <= policy.pep.start < 0, "from -200 to below 0"),
        ("policy.pep.lr", 0 < policy.pep.lr <= 10, "above 0, at most 10"),
        ("policy.pep.weight_decay", 0 < policy.pep.weight_decay < 1, "above 0, below 1"),
        ("policy.pep.table_weight_decay", 0 <= policy.pep.table_weight_decay < 1, "from 0 to below 1"),
        ("policy.pep.epochs", policy.pep.epochs >= 1, "1 or above"),
        ("policy.pep.check_every", policy.pep.check_every >= 1, "1 or above"),
        ("policy.dsl.ratio", dsl.ratio is None or 0 <= dsl.ratio <= 1, "from 0 to 1"),
        ("policy.dsl.ratio_min", dsl.ratio_min is None or 0 <= dsl.ratio_min <= 1, "from 0 to 1"),
        ("policy.dsl.stop_at", dsl.stop_at is None or 0 <= dsl.stop_at <= 1, "from 0 to 1"),
        ("policy.dsl.grow_triples", dsl.grow_triples is None or dsl.grow_triples >= 1, "1 or above"),
        ("policy.dsl.rounds", dsl.rounds is None or dsl.rounds >= 0, "0 or above"),
        ("policy.dsl.round_epochs", dsl.round_epochs is None or dsl.round_epochs >= 1, "1 or above"),
        ("policy.dsl.max_candidates", dsl.max_candidates >= 1, "1 or above"),
        ("policy.bet.iterations", 1 <= bet.iterations <= 10_000, "from 1 to 10000"),
        ("policy.bet.actions", 1 <= bet.actions <= 100_000, "from 1 to 100000"),
        ("policy.bet.finetune_epochs", bet.finetune_epochs >= 1, "1 or above"),
        ("policy.bet.finetune_lr", bet.finetune_lr is None or 0 < bet.finetune_lr <= 10, "above 0, at most 10"),
        ("policy.bet.updates", 0 <= bet.updates <= 10_000, "from 0 to 10000"),
        ("policy.bet.retrain", 1 <= bet.retrain <= bet.iterations, "from 1 to policy.bet.iterations"),
    ]
    for key, holds, expected in require:
        if not holds:
            raise UserError(f"{key} is {_value(config, key)}; it must be {expected}")
    if policy.budget is not None and policy.density is not None:
        raise UserError("policy.budget and policy.density are both given; give one of them")
    if Path(config.run.name).name != config.run.name:
        raise UserError(
            f"run.name is {config.run.name!r}; it must be a plain folder name (use run.folder for the parent)"
        )


def leaf_types(cls: type = Config, prefix: str = "") -> dict[str, Any]:
    """Types of the values, by their full key, as `optim.lr`."""
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(cls).items():
        nested = dataclasses.is_dataclass(kind)
        found |= leaf_types(typing.cast(type, kind), f"{prefix}{name}.") if nested else {prefix + name: kind}
    return found


def _build(cls: type, mapping: dict[str, Any]) -> Any:
    types = typing.get_type_hints(cls)
    values = {key: mapping[key] for key in types if key in mapping}
    for key, kind in types.items():
        if key in values and dataclasses.is_dataclass(kind):
            values[key] = _build(typing.cast(type, kind), values[key])
        elif isinstance(values.get(key), list):
            values[key] = tuple(values[key])
    return cls(**values)


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
