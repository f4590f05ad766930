"""What the commands `train`, `eval` and `data` do."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from recsparse import config as configuration
from recsparse import config_reader, data, models, policies, report
from recsparse.checkpoint import load_table
from recsparse.config import Config, DataConfig
from recsparse.data import Dataset, StreamedDataset
from recsparse.errors import UserError
from recsparse.evaluate import evaluate
from recsparse.runs import RunFolder, peak_rss_bytes
from recsparse.train import Trainer

EXAMPLES = """examples:
  recsparse train --data.path DIR --policy.name dsl --policy.budget 20%
  recsparse train --config my.yaml --optim.lr 0.002
  recsparse train --data.path demo --policy.name dense --run.name first
  recsparse train --data.path DIR --policy.budget 20% --device cuda
  recsparse train --data.path DIR --policy.name lth --policy.lth.rounds 22
  recsparse train --data.path DIR --ticket runs/NAME/checkpoint/ticket-15
  recsparse train --resume runs/first"""

# Keys that a resumed run may change: they move work around or extend it.
RESUMABLE = ("data.path", "train.epochs", "train.patience", "train.threads", "train.check_invariants")


def train(argv: list[str]) -> int:
    """`recsparse train`: one run, new or resumed."""
    baseline = peak_rss_bytes()
    argv, folder = split_option(expand_short_flags(argv), "--resume")
    resumed = None if folder is None else RunFolder(Path(folder))
    parser = config_reader.build_parser("recsparse train", EXAMPLES)
    parser.add_argument("--resume", metavar="RUN", help="run folder to go on with; only lengths and paths may change")
    if resumed is not None and not resumed.config_file.is_file():
        raise UserError(f"--resume {resumed.path}: no run there (config.yaml is missing)")
    given = argv if resumed is None else [f"--config={resumed.config_file}", *argv]
    config = policies.resolve(config_reader.parse(parser, given))
    if resumed is not None:
        _check_resumable(config, config_reader.parse(parser, [f"--config={resumed.config_file}"]))
    dataset = open_dataset(config.data)
    if Path(config.data.path).is_dir():  # `eval` and `--resume` find the data from any working directory
        config = replace(config, data=replace(config.data, path=str(Path(config.data.path).resolve())))
    run = resumed or RunFolder.for_config(config, dataset.name)
    with _progress() as bar:
        task = bar.add_task("", total=1.0)
        trainer = Trainer(
            config,
            dataset,
            run,
            log=lambda line: bar.console.print(line, highlight=False, markup=False, soft_wrap=True),
            on_chunk=lambda stage, epoch, share: bar.update(
                task, completed=share, description=f"{stage}, epoch {epoch + 1}"
            ),
            baseline_rss=baseline,
        )
        if resumed is not None:
            trainer.resume()
        final = trainer.train()
    result = report.Result.read(run)
    written = report.write_report(run.path, f"{final['policy']} on {final['data']}", [result])
    report.print_table([result])
    print(f"report: {written}")
    return 0


def expand_short_flags(argv: list[str]) -> list[str]:
    """`--device cuda` is short for `--train.device cuda`, `--ticket DIR` for the policy ticket and its folder."""
    short = {"--device": ["--train.device"], "--ticket": ["--policy.name=ticket", "--policy.ticket"]}
    long: list[str] = []
    for word in argv:
        name, equals, value = word.partition("=")
        *before, last = short.get(name, [name])
        long += [*before, last + equals + value]
    return long


def evaluate_run(run_path: str, split: str, ks: list[int], as_json: bool) -> int:
    """`recsparse eval`: metrics of a run's best model on its data."""
    run = RunFolder(Path(run_path))
    if not run.config_file.is_file():
        raise UserError(f"--run {run_path}: no run there (config.yaml is missing)")
    if min(ks) < 1:
        raise UserError(f"--topk is {min(ks)}; it must be 1 or above")
    config = config_reader.parse(config_reader.build_parser("recsparse eval"), [f"--config={run.config_file}"])
    if not config.train.checkpoint:
        raise UserError(f"--run {run_path} kept no checkpoint (train.checkpoint: false); see its metrics.jsonl")
    table = load_table(run.checkpoint("best"))
    dataset = open_dataset(config.data)
    if table.rows != dataset.n_users + dataset.n_items:
        raise UserError(
            f"{run_path} has a table of {table.rows} rows, its data.path {config.data.path} now holds "
            f"{dataset.n_users} users and {dataset.n_items} items; restore the original files"
        )
    metrics = evaluate(models.build(config, dataset).for_ranking(table), dataset, split=split, ks=ks)
    stamp = {"stamp": "TEST-SELECTED"} if config.data.protocol == "paper" else {}
    facts = {"split": split, "users": metrics.users, "users_dropped": metrics.dropped_users, "data_hash": dataset.hash}
    row: dict[str, Any] = {"run": str(run.path), **stamp, **facts, **metrics.values}
    if as_json:
        print(json.dumps(row))
    else:
        print(
            "\n".join(
                f"{name:<14}{value:.5f}" if isinstance(value, float) else f"{name:<14}{value}"
                for name, value in row.items()
            )
        )
    return 0


def data_stats(path: str) -> int:
    """`recsparse data stats`: counts and hash."""
    for name, value in open_dataset(DataConfig(path=path)).stats().items():
        print(f"{name:<28}{value}")
    return 0


def data_download(name: str, folder: str) -> int:
    """`recsparse data download`: the only command that uses the network."""
    print(f"{name}: {data.download(name, Path(folder))}")
    return 0


def data_split(path: str, folder: str, shares: str, seed: int) -> int:
    """`recsparse data split`: a new folder with the interactions of another."""
    if seed < 0:
        raise UserError(f"--seed is {seed}; it must be 0 or above")
    counts = data.split_folder(Path(path), Path(folder), data.parse_shares(shares), seed)
    print(f"{folder}: " + ", ".join(f"{count} {part}" for part, count in counts.items()))
    return 0


def open_dataset(options: DataConfig) -> Dataset | StreamedDataset:
    """The folder or the generated preset that `data.path` names.

    Raises:
        UserError: neither; or what is wrong in the files.
    """
    if not options.path:
        raise UserError("data.path is empty; give a folder with train.txt and test.txt, or a preset such as demo")
    if options.path in data.PRESETS and not Path(options.path).is_dir():
        if data.PRESETS[options.path].pairs is None:
            return data.streamed(options.path, protocol=options.protocol, eval_users=options.eval_users)
        return data.generate(options.path, protocol=options.protocol)
    return data.load_folder(
        options.path, protocol=options.protocol, valid_fraction=options.valid_fraction, seed=options.split_seed
    )


def _progress() -> Progress:
    """A bar on stderr, silent where that is no terminal."""
    console = Console(stderr=True) if sys.stderr.isatty() else Console(file=sys.stdout)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), console=console, transient=True, disable=not sys.stderr.isatty()
    )


def split_option(argv: list[str], flag: str) -> tuple[list[str], str | None]:
    """`argv` without an option that is no key of the configuration, and its value; None where it is not given."""
    for place, token in enumerate(argv):
        if token == flag:
            if place + 1 == len(argv):
                raise UserError(f"{flag} needs a value")
            return argv[:place] + argv[place + 2 :], argv[place + 1]
        if token.startswith(f"{flag}="):
            return argv[:place] + argv[place + 1 :], token.removeprefix(f"{flag}=")
    return argv, None


def _check_resumable(wanted: Config, stored: Config) -> None:
    before, after = configuration.flatten(stored), configuration.flatten(wanted)
    for key, value in after.items():
        if value != before[key] and key not in RESUMABLE:
            raise UserError(f"--resume keeps {key} at {before[key]}; only {', '.join(RESUMABLE)} may change")
