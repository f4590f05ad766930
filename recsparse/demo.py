"""The demonstration: what a byte budget costs in quality and saves in memory, on generated data.

Each method trains in a process of its own, through the same command that a user types, so that its peak memory is its
own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from recsparse import report
from recsparse.data import PRESETS, generate
from recsparse.errors import UserError
from recsparse.evaluate import popularity_baseline
from recsparse.runs import RunFolder

EPOCHS = 40
MARKER = ".recsparse-demo"


class Method(NamedTuple):
    """One row of the demo's table: a label and the flags that make it."""

    label: str
    flags: tuple[str, ...]


ROUNDS = ("--policy.dsl.rounds=8", "--policy.dsl.round_epochs=8")
METHODS = (
    Method("dense", ("--policy.name=dense",)),
    Method("small dense 30%", ("--policy.name=small_dense", "--policy.budget=30%")),
    Method("DSL 30%", ("--policy.name=dsl", "--policy.budget=30%", *ROUNDS)),
    Method("small dense 15%", ("--policy.name=small_dense", "--policy.budget=15%")),
    Method("DSL 15%", ("--policy.name=dsl", "--policy.budget=15%", *ROUNDS)),
)
SHARED = ("--optim.lr=0.005", "--train.eval_every=5", "--train.patience=3")


def run_demo(folder: str, preset: str, epochs: int = EPOCHS) -> int:
    """Trains every method, prints the table and writes `FOLDER/report.md` with its plot.

    Raises:
        UserError: `folder` holds something else than an earlier demo, or a training run failed.
    """
    target = Path(folder)
    if preset not in PRESETS:
        raise UserError(f"--preset is {preset!r}; it must be one of {', '.join(PRESETS)}")
    if epochs < 1:
        raise UserError(f"--epochs is {epochs}; it must be 1 or above")
    _clear(target)
    started = time.perf_counter()
    results = []
    for method in METHODS:
        print(f"training {method.label} on {preset} ...", flush=True)
        results.append(_run(method, target, preset, epochs))
    report.print_table(results)
    popular = popularity_baseline(generate(preset)).values["recall@20"]
    print(f"For scale: recall@20 of recommending the most popular items is {popular:.4f}.")
    print(f"\n{report.FOOTNOTE}")
    written = report.write_report(target, "recsparse demo", results)
    print(f"\n{time.perf_counter() - started:.0f} s in all; report: {written}")
    return 0


def _run(method: Method, target: Path, preset: str, epochs: int) -> report.Result:
    name = method.label.lower().replace(" ", "-").replace("%", "")
    command = [sys.executable, "-m", "recsparse", "train", f"--data.path={preset}", f"--train.epochs={epochs}"]
    command += [f"--run.folder={target}", f"--run.name={name}", *SHARED, *method.flags]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        reason = done.stderr.strip().removeprefix("recsparse: error: ") or f"exit status {done.returncode}"
        raise UserError(f"{method.label}: {reason}")
    return report.Result.read(RunFolder(target / name), method.label)


def _clear(target: Path) -> None:
    """Removes an earlier demo, and nothing else."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; give another --folder")
    if target.exists() and not (target / MARKER).is_file() and any(target.iterdir()):
        raise UserError(f"{target} is not empty and no earlier demo; give another --folder")
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        (target / MARKER).touch()
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from None
