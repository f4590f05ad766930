"""`recsparse sweep`: hyper-parameter search for several policies, the same number of trials for each.

A trial is a training run of its own (`recsparse.cells`), and its value the best recall@20 of the run on the split that
selects. Each policy has its own study, in one SQLite file; a trial's parameters depend on the seed, its number and the
trials before it alone, so that a sweep that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recsparse import config as configuration
from recsparse import config_reader, policies
from recsparse.budget import parse_budget
from recsparse.cells import MODELS, Cell, check_flags, command, names, plan, settle
from recsparse.cli import Parser
from recsparse.commands import open_dataset
from recsparse.config import Config
from recsparse.errors import Diverged, UserError
from recsparse.report import Result
from recsparse.runs import RunFolder
from recsparse.space import FIXED, Choice, Range, Space, check, for_policy, load, text_of
from recsparse.sweep_report import Trial, best, print_table, short, write_files
from recsparse.train import SELECT_BY

EXAMPLES = """examples:
  recsparse sweep --data DIR --space space.yaml --policy dense,small_dense,lth --budget 10% --trials 20
  recsparse sweep --data DIR --space space.yaml --policy dsl --budget 1MB --folder runs/dsl --train.epochs=100

space.yaml gives keys of `recsparse train` ranges or choices:
  optim.lr: {low: 1e-4, high: 1e-2, log: true}
  optim.l2: {low: 1e-5, high: 1e-2, log: true}
  train.batch_size: {choices: [1024, 2048, 4096]}
  policy.dsl.rounds: {low: 2, high: 10, step: 2}

options of a policy (policy.dsl.*) are searched for that policy alone; flags that are not listed here are keys of
`recsparse train`, the same for all trials; `recsparse train --config FOLDER/best-POLICY.yaml` trains what was found"""


class Search(NamedTuple):
    """One policy's part of a sweep: its Optuna study, what is varied in it, and what all its trials share."""

    study: Any
    cell: Cell
    space: Space
    data: str
    folder: Path
    flags: list[str]

    def run(self, number: int) -> RunFolder:
        return RunFolder(self.folder / f"{self.cell.name}-t{number:03d}")


def main(argv: list[str]) -> int:
    """The command; see the module's description.

    Raises:
        UserError: bad flags or a bad space, a folder with another sweep, Optuna is missing, a run that cannot write,
            or a policy of which no trial finished.
    """
    options, flags = _parse(argv)
    optuna = _optuna()
    folder, file = Path(options.folder), Path(options.space)
    space = load(file)
    cells = plan([options.model], names(options.policy), [options.budget], [options.seed])
    if any(cell.budget for cell in cells):
        parse_budget(options.budget, 1 << 40, 256)  # of so large a table that only the spelling matters
    configs = [_prepared(cell, options.data, folder, flags, file, space) for cell in cells]
    data_hash = open_dataset(configs[0].data).hash
    with _alone_in(folder):
        storage = _storage(optuna, folder)
        searches = []
        for cell, config in zip(cells, configs, strict=True):
            own = for_policy(space, cell.policy)
            study = optuna.create_study(
                study_name=cell.name, storage=storage, direction="maximize", load_if_exists=True
            )
            _check_same(study, folder, _setting(config, own, data_hash), options.trials)
            searches.append(Search(study, cell, own, options.data, folder, flags))
            print(f"{cell.name}: {options.trials} trials over {', '.join(own) or 'nothing'}", flush=True)
        # In turn, so that the policies have had the same number of trials wherever the sweep stops.
        for number in range(options.trials):
            for place, search in enumerate(searches, 1):
                if _is_open(search, number):
                    line = _run(optuna, search, number, options.seed)
                    print(f"{number * len(searches) + place}/{options.trials * len(searches)} {line}", flush=True)
                    write_files(folder, [_trials(each) for each in searches], options.trials)
        found = [_trials(search) for search in searches]
        written = write_files(folder, found, options.trials)
    print_table(found)
    print(f"report: {written}")
    for trials in found:
        if best(trials) is None:
            first = trials[0]
            raise UserError(f"{first.policy}: none of {len(trials)} trials finished; the first: {first.failed}")
    return 0


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(
        prog="recsparse sweep",
        description="Search hyper-parameters of several policies with Optuna, the same number of trials for each. A "
        "second call goes on where the first one stopped.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data", required=True, help="folder with train.txt and test.txt, or a generated preset")
    parser.add_argument("--space", required=True, metavar="FILE", help="YAML file with what is searched")
    parser.add_argument("--model", default="mf", choices=MODELS, help="default: mf")
    parser.add_argument("--policy", default="dense,small_dense,dsl,lth", metavar="P[,P]", help="default: %(default)s")
    parser.add_argument("--budget", default="10%", metavar="B", help="share of dense fp32 or bytes (default: 10%%)")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="trials of each policy (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the search and of each run (default: 0)")
    parser.add_argument("--folder", default="runs/sweep", help="parent of the runs (default: runs/sweep)")
    options, flags = parser.parse_known_args(argv)
    if options.trials < 1:
        raise UserError(f"--trials is {options.trials}; it must be 1 or above")
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}; it must be 0 or above")
    check_flags(flags, "sweep")
    for flag in flags:
        key = flag[2:].partition("=")[0]
        if key == "data.path" or (key.startswith(FIXED) and not key.startswith("data.")):
            raise UserError(
                f"{flag}: the sweep sets {key} itself; see --data, --model, --policy, --budget, --seed, --folder"
            )
    return options, flags


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("the sweep needs Optuna; install it with: pip install 'recsparse[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _prepared(cell: Cell, data: str, folder: Path, flags: list[str], file: Path, space: Space) -> Config:
    """The configuration that the trials of a cell vary, after a check of flags and space."""
    own, given = for_policy(space, cell.policy), command(cell, data, folder, flags)
    for flag in flags:
        key = flag[2:].partition("=")[0]
        if key in space:
            raise UserError(f"{flag}: {file} searches {key}; leave out one of the two")
    config = config_reader.parse(config_reader.build_parser("recsparse sweep"), given)
    check(file, own, given)
    return policies.resolve(config)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Makes the folder and holds a lock in it: two sweeps would train the same runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"another sweep is running in {folder}; wait for it, or give another --folder") from None
    finally:
        os.close(lock)


def _storage(optuna: Any, folder: Path) -> Any:
    file = folder / "studies.db"
    try:
        return optuna.storages.RDBStorage(f"sqlite:///{file.resolve()}")
    except Exception as error:  # those of SQLAlchemy, which only Optuna knows
        raise UserError(f"{file}: {str(error).splitlines()[0]}; restore it, or give another --folder") from None


def _setting(config: Config, space: Space, data_hash: str) -> dict[str, str]:
    """What every trial of a study has in common, as text."""
    facts = {key: text_of(value) for key, value in configuration.flatten(config).items()}
    for key in ("run.name", "run.folder", "data.path", "train.threads", *space):
        del facts[key]
    return facts | {f"space of {key}": repr(value) for key, value in space.items()} | {"data": data_hash}


def _check_same(study: Any, folder: Path, setting: Mapping[str, str], trials: int) -> None:
    before: dict[str, str] | None = study.user_attrs.get("setting")
    if before is None:
        study.set_user_attr("setting", dict(setting))
        return
    for key in [*setting, *before]:
        if before.get(key) != setting.get(key):
            raise UserError(
                f"{folder} holds a sweep with {key} {before.get(key)}, not {setting.get(key)}; give another --folder"
            )
    done = len(study.get_trials(deepcopy=False))
    if done > trials:
        raise UserError(f"--trials is {trials}, but {folder} holds {done} of {study.study_name}; give at least {done}")


def _is_open(search: Search, number: int) -> bool:
    """Whether trial `number` is to be run, or to be finished."""
    trials = search.study.get_trials(deepcopy=False)
    return number >= len(trials) or not trials[number].state.is_finished()


def _run(optuna: Any, search: Search, number: int, seed: int) -> str:
    """Trial `number`: asks for it, or takes up the one that was interrupted; trains; tells. Returns a line on it."""
    study = search.study
    # Of a seed of its own: a sampler that goes on with its stream would begin it anew in every process.
    study.sampler = optuna.samplers.TPESampler(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
    stopped = [trial for trial in study.get_trials(deepcopy=False) if trial.number == number]
    trial = optuna.trial.Trial(study, stopped[0]._trial_id) if stopped else study.ask()
    values = {key: _suggest(trial, key, each) for key, each in search.space.items()}
    run = search.run(number)
    varied = [f"--{key}={value}" for key, value in values.items()]
    flags = command(search.cell, search.data, search.folder, [*search.flags, *varied], run.path.name)
    trial.set_user_attr("values", values)
    shown = "  ".join(f"{key} {value}" for key, value in short(values).items())
    started = time.perf_counter()
    try:
        config_reader.parse(config_reader.build_parser("recsparse sweep"), flags)
        done = settle(run, flags)
    except UserError as error:
        if run.path.exists() and not isinstance(error, Diverged):
            raise  # a full disk, say: nothing that is wrong with the values
        trial.set_user_attr("reason", str(error))
        trial.set_user_attr("wall", time.perf_counter() - started)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        line = f"{run.path.name}: failed: {error}"
    else:
        result = Result.read(run)
        split = result.final["selected_on"]
        quality = result.final[f"best_{split}_{SELECT_BY}"]
        trial.set_user_attr("wall", result.final["wall_seconds"])
        study.tell(trial, quality)
        line = (
            f"{run.path.name}: {done}, {split} {SELECT_BY} {quality:.4f}{' TEST-SELECTED' if split == 'test' else ''}"
        )
    trials = _trials(search)
    leader = best(trials)
    for each in trials:
        if each is not leader:  # the checkpoints of all trials would fill the disk
            shutil.rmtree(each.run.path / "checkpoint", ignore_errors=True)
    if leader is not None:
        line += f" (best {leader.quality:.4f}, trial {leader.number})"
    return f"{line}  {shown}"


def _suggest(trial: Any, key: str, dimension: Range | Choice) -> str:
    """The trial's value of `key`, as a flag gives it."""
    if isinstance(dimension, Choice):
        chosen: str = trial.suggest_categorical(key, dimension.texts)
        return chosen
    low, high, step, log = dimension.low, dimension.high, dimension.step, dimension.log
    if dimension.whole:
        return text_of(trial.suggest_int(key, low, high, step=step or 1, log=log))
    return text_of(trial.suggest_float(key, low, high, step=step, log=log))


def _trials(search: Search) -> list[Trial]:
    """All finished trials, with the facts of their runs."""
    found = []
    for each in search.study.get_trials(deepcopy=False):
        if each.state.is_finished():
            attrs = each.user_attrs
            found.append(
                Trial(
                    search.cell.model,
                    search.cell.policy,
                    search.cell.budget,
                    each.number,
                    attrs["values"],
                    None if "reason" in attrs else each.value,
                    attrs.get("reason", ""),
                    attrs["wall"],
                    search.run(each.number),
                )
            )
    return found
