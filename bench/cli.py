"""``recsparse bench run | report | compare``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recsparse import arguments
from recsparse.backend import resolve_backend
from recsparse.cli import Parser
from recsparse.config import MAX_THREADS
from recsparse.errors import UserError

from . import axes, compare, machine, report, rows
from .ceilings import Ceilings
from .registry import OP_NAMES, Case, Op, Provider, get_op, is_ours, providers_of
from .run import Options, run_op

QUICK = Options(threads=1, rounds=6, budget_s=0.5)
TIMING_S = 200.0  # of a whole run with default budgets
SETUP_S = 8e-9  # for a slot of a table and a provider: filling, packing and checking, measured on a 2-core machine

Plan = list[tuple[Op, list[Provider], list[Case]]]


def _threads(text: str) -> int:
    value = arguments.count(text)
    if value > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"at most {MAX_THREADS}, got {text}")
    return value


def _parser() -> Parser:
    parser = Parser(
        prog="recsparse bench",
        description="Time the ops against their peers, and look at results.",
        epilog="`recsparse bench scale --help` explains the run of one huge table.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run | report | compare")

    run = commands.add_parser(
        "run",
        help="time ops against their peers",
        description="Times the ops against their peers, in turns in one run, after measuring what the machine can do. "
        "Wrong answers get no time. docs/benchmarking.md says how to read the result.",
    )
    _add_choice(run)
    run.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")

    show = commands.add_parser("report", help="tables and plots of a result file")
    show.add_argument("file", type=Path)
    show.add_argument("--markdown", action="store_true", help="tables in Markdown")
    show.add_argument(
        "--plots",
        type=Path,
        metavar="FOLDER",
        help="where roofline.png, speed.png and density.png go (default: "
        "a folder beside FILE, named as FILE without its suffix)",
    )

    both = commands.add_parser(
        "compare",
        help="ratios of two result files, or of a git commit and the working tree",
        description="Ratios of the median times of two result files, changes beyond noise flagged. With --base: builds "
        "that commit in a throw-away worktree, runs the chosen ops of it and of the working tree twice each, in turns, "
        "and compares. Exit status 1 if one of our ops became slower beyond noise, or wrong.",
    )
    both.add_argument("before", type=Path, nargs="?")
    both.add_argument("after", type=Path, nargs="?")
    both.add_argument("--base", metavar="GITREF", help="compare the working tree with this commit")
    _add_choice(both)
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    """Flags that choose what is run."""
    parser.add_argument("--op", metavar="NAME[,NAME]", help=f"default: {','.join(OP_NAMES)}")
    parser.add_argument("--provider", metavar="P[,P]", help="only these (default: all that are installed)")
    parser.add_argument(
        "--threads", type=arguments.listed(_threads), metavar="N[,N]", help="of all providers (default: all CPUs)"
    )
    parser.add_argument(
        "--budget",
        type=arguments.seconds,
        metavar="SECONDS",
        help=f"timing of a case, all providers (default: {TIMING_S:g} s shared by all cases, at most 40 each)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where all tensors lie (default: cpu)")
    parser.add_argument("--quick", action="store_true", help="tiny cases and few rounds: a smoke test, no measurement")
    axes.add(parser)


def main(argv: list[str]) -> int:
    """Entry of ``recsparse bench``: 0; 1 if an answer of ours was wrong, or `compare` found ours slower. Raises
    UserError on bad flags."""
    options = _parser().parse_args(argv)
    if options.command == "run":
        return _run(options)
    if options.command == "report":
        return _report(options)
    return _compare(options, argv)


def plan(options: argparse.Namespace) -> Plan:
    """Ops with their providers and cases. Raises UserError for names that do not exist and axes that do not apply."""
    names = options.provider.split(",") if options.provider else None
    ops = [get_op(name) for name in dict.fromkeys(options.op.split(",") if options.op else OP_NAMES)]
    chosen = axes.given(options)
    axes.check(ops, chosen)
    device = options.device
    found = [(op, providers_of(op.name, names, device), axes.cases(op, options.quick, chosen, device)) for op in ops]
    if options.op is None:
        found = [part for part in found if part[1]]
    for op, providers, _ in found:
        if not providers_of(op.name, device=device):
            raise UserError(f"--device {device}: nothing computes {op.name} there; choose other ops with --op")
        if not providers:
            raise UserError(f"--provider: none of {options.provider} computes {op.name}; see `bench run --help`")
    return found


def seconds(chosen: Plan, budget_s: float) -> float:
    """About how long a run takes at most: the timing of each case, and setting it up."""
    return sum(budget_s + SETUP_S * case.slots * len(providers) for _, providers, cases in chosen for case in cases)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _run(options: argparse.Namespace) -> int:
    if options.json is not None and options.json.is_dir():
        raise UserError(f"--json: {options.json} is a folder; give a file")
    if options.json is not None and not options.json.resolve().parent.is_dir():
        raise UserError(f"--json: {options.json.parent} is not a folder; create it first")
    if options.device != "cpu":
        resolve_backend("auto", options.device)  # raises, and says why
    chosen = plan(options)
    count = sum(len(cases) for _, _, cases in chosen)
    thread_counts: Sequence[int] = options.threads or [machine.cpus()]
    budget = options.budget
    if budget is None:
        budget = QUICK.budget_s if options.quick else min(Options.budget_s, TIMING_S / (count * len(thread_counts)))
    most = len(thread_counts) * seconds(chosen, budget)
    _say(f"{count * len(thread_counts)} cases, at most about {max(1, round(most / 60))} min")
    # Peers bring OpenMP runtimes of their own, whose idle threads would spin for milliseconds on the cores that the
    # next provider needs. torch's own, which is loaded and which ours uses too, has read this variable already.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    done: list[rows.Row] = []
    for threads in thread_counts:
        torch.set_num_threads(threads)
        settings = Options(threads=threads, rounds=QUICK.rounds if options.quick else Options.rounds, budget_s=budget)
        ceilings = Ceilings(options.device)
        _show(ceilings.rows(options.quick), done)
        for op, providers, cases in chosen:
            _show(run_op(op, cases, providers, settings, _say, ceilings), done)
            if options.json is not None:
                rows.write(done, options.json)  # what is stopped half-way leaves what it had
    return 1 if any(row["correct"] is False and is_ours(row["provider"]) for row in done) else 0


def _show(fresh: list[rows.Row], done: list[rows.Row]) -> None:
    print(report.table(fresh), flush=True)
    done += fresh


def _report(options: argparse.Namespace) -> int:
    found = rows.read(options.file)
    print(report.table(found, markdown=options.markdown))
    folder = options.plots or options.file.with_suffix("")
    try:
        from . import plots
    except ImportError:
        print("no plots: matplotlib is not installed (`pip install recsparse[plot]`)")
        return 0
    for path in plots.write(found, folder):
        print(f"plot: {path}")
    return 0


def _compare(options: argparse.Namespace, argv: list[str]) -> int:
    if options.base is not None:
        if options.before is not None:
            raise UserError("compare: give --base or two files, not both")
        plan(options)
        from . import base

        before, after = base.measure(options.base, _without_base(argv[1:]), _say)
    else:
        if options.after is None:
            raise UserError("compare: give two files that `bench run --json` wrote, or --base GITREF")
        extra: list[Any] = [options.op, options.provider, options.threads, options.budget, *axes.given(options)]
        if options.quick or any(value is not None for value in extra):
            raise UserError("compare: flags that choose what is run need --base GITREF")
        before, after = rows.read(options.before), rows.read(options.after)
    result = compare.compare(before, after)
    print(result.text, end="")
    return 1 if result.worse else 0


def _without_base(argv: list[str]) -> list[str]:
    """The flags of `bench run` in those of `bench compare --base`."""
    place = next(number for number, token in enumerate(argv) if token == "--base" or token.startswith("--base="))
    return argv[:place] + argv[place + (1 if "=" in argv[place] else 2) :]
