"""A data set that trains in a second, shared by the tests of the trainer and of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recsparse import policies
from recsparse.config import Config, DataConfig, DslConfig, ModelConfig, OptimConfig, PolicyConfig, TrainConfig
from recsparse.data import Dataset, load_folder
from recsparse.runs import RunFolder
from recsparse.train import Trainer

USERS, ITEMS, PER_USER = 120, 80, 16


def write_folder(folder: Path) -> Path:
    """train.txt and test.txt in which each user likes the items of one of four tastes, and a few others."""
    generator = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for user in range(USERS):
        odds = np.where(np.arange(ITEMS) % 4 == user % 4, 20.0, 1.0)
        items = generator.choice(ITEMS, PER_USER, replace=False, p=odds / odds.sum())
        lines["train"].append(" ".join(map(str, [user, *items[:12]])))
        lines["test"].append(" ".join(map(str, [user, *items[12:]])))
    for part, text in lines.items():
        (folder / f"{part}.txt").write_text("\n".join(text) + "\n")
    return folder


def dataset(folder: Path, protocol: str = "valid") -> Dataset:
    return load_folder(write_folder(folder / "tiny"), protocol=protocol)  # type: ignore[arg-type]


def config(
    policy: str = "dsl",
    *,
    model: str = "mf",
    epochs: int = 4,
    protocol: str = "valid",
    dtype: str = "float32",
    **options: object,
) -> Config:
    """A run of a few seconds; `options` are fields of `TrainConfig` or `DslConfig`."""
    train = {key: value for key, value in options.items() if key in TrainConfig.__dataclass_fields__}
    dsl = {key: value for key, value in options.items() if key in DslConfig.__dataclass_fields__}
    assert len(train) + len(dsl) == len(options)
    dsl.setdefault("mode", "fresh")  # one stage: what most tests of the trainer are about
    return policies.resolve(
        Config(
            data=DataConfig(path="tiny", protocol=protocol),  # type: ignore[arg-type]
            model=ModelConfig(name=model, dim=16, dtype=dtype),  # type: ignore[arg-type]
            policy=PolicyConfig(
                name=policy,
                density=None if policy == "dense" else 0.25,
                dsl=DslConfig(**dsl),  # type: ignore[arg-type]
            ),
            optim=OptimConfig(lr=0.02),
            train=TrainConfig(
                **{"epochs": epochs, "batch_size": 64, "eval_every": 2, "patience": 0, "check_invariants": True} | train  # type: ignore[arg-type]
            ),
        )
    )


def trainer(folder: Path, settings: Config, name: str = "run") -> Trainer:
    data = dataset(folder, settings.data.protocol)
    return Trainer(settings, data, RunFolder(folder / name), log=lambda line: None)
