"""Runs that are part of a larger experiment: each a `recsparse train` in a process of its own, resumable.

A process of its own gives each run a peak memory of its own, and lets one fail alone. It never outlives the experiment.
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from recsparse import checkpoint, config_reader, policies
from recsparse import config as configuration
from recsparse.errors import DIVERGED, Diverged, RecsparseError, UserError
from recsparse.runs import RunFolder

MODELS = ("mf", "lightgcn")
# What a run may have been started with otherwise, and still be the same run.
FREE_KEYS = ("run.folder", "run.name", "train.threads", "train.check_invariants")
_PR_SET_PDEATHSIG = 1


class Stopped(RecsparseError):
    """A signal stopped the experiment, after the run in progress had saved a checkpoint."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; the same command goes on from here")
        self.exit_code = 128 + signum


class Cell(NamedTuple):
    """One training run. `budget` is empty for a policy that takes none."""

    model: str
    policy: str
    budget: str
    seed: int

    @property
    def name(self) -> str:
        parts = [self.model, self.policy, self.budget.replace("%", "pct"), f"s{self.seed}"]
        return "-".join(part for part in parts if part)


def names(text: str) -> list[str]:
    """Parts of `a,b,c`, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def plan(
    model_names: Sequence[str], policy_names: Sequence[str], budgets: Sequence[str], seeds: Iterable[int]
) -> list[Cell]:
    """All cells, in the order in which they are run.

    Raises:
        UserError: an unknown model or policy.
    """
    for name in model_names:
        if name not in MODELS:
            raise UserError(f"--model: unknown model {name!r}; choose from {', '.join(MODELS)}")
    for name in policy_names:
        policies.find(name)
    cells = []
    for seed in seeds:
        for model in model_names:
            for policy in policy_names:
                chosen = budgets if policies.find(policy).sized else [""]
                cells += [Cell(model, policy, budget, seed) for budget in chosen]
    return cells


def command(cell: Cell, data: str, folder: Path, flags: Iterable[str], name: str = "") -> list[str]:
    """Flags of `recsparse train` for a cell; its run has the cell's name, or `name`."""
    own = [f"--data.path={data}", f"--model.name={cell.model}", f"--policy.name={cell.policy}"]
    own += [f"--train.seed={cell.seed}", f"--run.folder={folder}", f"--run.name={name or cell.name}"]
    if cell.budget:
        own.append(f"--policy.budget={cell.budget}")
    return [*flags, *own]


def check_flags(flags: Sequence[str], command: str) -> None:
    """Flags for the runs are keys of `recsparse train`, written --key=value. Raises UserError for any other."""
    for flag in flags:
        if not flag.startswith("--") or "=" not in flag:
            raise UserError(f"{flag}: not a flag of {command}; keys of `recsparse train` are given as --key=value")


def settle(run: RunFolder, flags: list[str]) -> str:
    """Sees to it that the run is finished; says what was done.

    Raises:
        Diverged: its loss or weights are not finite any more.
        Stopped: SIGINT or SIGTERM came; the run has saved a checkpoint.
        UserError: it failed, or the folder holds another run.
    """
    done = "trained"
    arguments = flags
    if run.path.exists() and not _is_bare(run.path):
        _check_same(run, flags)
        if any(row["event"] == "final" for row in run.rows()):
            return "was there"
        if checkpoint.exists(run.checkpoint("last")):
            arguments, done = [f"--resume={run.path}"], "resumed"
    if done == "trained":  # what stopped before its first checkpoint starts again
        shutil.rmtree(run.path, ignore_errors=True)
    status, message = _train(arguments)
    reason = message.strip().removeprefix("recsparse: error: ") or f"exit status {status}"
    if status == DIVERGED:
        raise Diverged(f"{run.path.name}: {reason}")
    if status:
        raise UserError(f"{run.path.name}: {reason}")
    return done


def _train(arguments: Sequence[str]) -> tuple[int, str]:
    """Exit status of `recsparse train`, and what it wrote on stderr. Signals are passed on to it."""
    libc = ctypes.CDLL(None)

    def end_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # else two processes could train one run

    # Of a session of its own: what Ctrl-C sends reaches it once, from here.
    process = subprocess.Popen(
        [sys.executable, "-m", "recsparse", "train", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=end_with_parent if sys.platform == "linux" else None,
    )
    received: list[int] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        process.send_signal(signum)

    watched = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, forward) for each in watched]
    try:
        _, message = process.communicate()
    finally:
        for each, handler in zip(watched, before, strict=True):
            signal.signal(each, handler)
    if received:
        raise Stopped(received[0])
    return process.returncode, message


def _is_bare(folder: Path) -> bool:
    """Whether a run was killed before it wrote a line: at most its configuration is there, perhaps half of it."""
    return {path.name for path in folder.iterdir()} <= {RunFolder(folder).config_file.name}


def _check_same(run: RunFolder, flags: list[str]) -> None:
    parser = config_reader.build_parser("recsparse train")
    wanted = configuration.flatten(policies.resolve(config_reader.parse(parser, flags)))
    if not run.config_file.is_file():
        raise UserError(f"{run.path} is no run (config.yaml is missing); give another --folder")
    there = configuration.flatten(config_reader.parse(parser, [f"--config={run.config_file}"]))
    for key, value in wanted.items():
        same = there[key] == value or key in FREE_KEYS
        if key == "data.path":
            same = Path(str(there[key])).resolve() == Path(str(value)).resolve() or there[key] == value
        if not same:
            raise UserError(
                f"{run.path} was run with {key} {there[key]}, not {value}; give another --folder, or remove that run"
            )
