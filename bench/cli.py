"""``recsparse bench run | report | compare``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from recsparse.config import MAX_THREADS
from recsparse.errors import UserError

from . import machine, report
from .inputs import parse_ids
from .registry import OP_NAMES, Case, get_op, is_ours, override, providers_of
from .run import Options, run_op

KINDS = ("bits", "cols8", "full", "prefix")
QUICK = Options(threads=1, rounds=6, budget_s=0.5)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help")


def _count(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 2**40 or value != int(value):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1 such as 16384 or 8e6, got {text!r}")
    return int(value)


def _density(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number in (0, 1] such as 0.1, got {text!r}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {text!r}")
    return value


def _parser() -> _Parser:
    parser = _Parser(
        prog="recsparse bench",
        description="Time the ops against their peers, and look at results.",
        epilog="`recsparse bench scale --help` explains the run of one huge table.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run | report | compare")

    run = commands.add_parser(
        "run",
        help="time ops against their peers",
        description="Times the ops against their peers, interleaved in one run. Without case flags the default cases "
        "are run; a flag replaces that field in each of them. Wrong answers get no time.",
    )
    run.add_argument("--op", default=",".join(OP_NAMES), metavar="NAME[,NAME]", help="default: %(default)s")
    run.add_argument("--provider", metavar="P[,P]", help="only these (default: all that are installed)")
    run.add_argument("--rows", type=_count, help="rows of the table, or number of values for select")
    run.add_argument("--dim", type=_count, help="columns, at most 256")
    run.add_argument("--density", type=_density, help="share of kept weights, in (0, 1]")
    run.add_argument("--batch", type=_count, help="ids, samples or triples of a call")
    run.add_argument("--ids", metavar="uniform|zipf:A", help="distribution of the ids")
    run.add_argument("--dtype", choices=("float32",), help="value type")
    run.add_argument("--kind", choices=KINDS, help="index kind of our table")
    run.add_argument("--threads", type=_count, help="threads of all providers (default: all CPUs of the process)")
    heat = run.add_mutually_exclusive_group()
    heat.add_argument("--cold", action="store_true", help="rotate over many input sets (the default)")
    heat.add_argument("--warm", action="store_true", help="reuse four input sets")
    run.add_argument("--budget", type=_seconds, metavar="SECONDS", help="timing of a case, all providers (default: 40)")
    run.add_argument("--quick", action="store_true", help="tiny cases and few rounds: a smoke test, not a measurement")
    run.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")

    show = commands.add_parser("report", help="table and plot of a result file")
    show.add_argument("file", type=Path)
    show.add_argument("--plot", type=Path, metavar="PNG", help="where the bar plot goes (default: beside FILE)")

    compare = commands.add_parser("compare", help="ratios of two result files, with changes beyond noise flagged")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    return parser


def main(argv: list[str]) -> int:
    """Entry of ``recsparse bench``: 0, or 1 if an answer of ours was wrong. Raises UserError on bad flags."""
    args = _parser().parse_args(argv)
    if args.command == "run":
        return _run(args)
    if args.command == "report":
        return _report(args.file, args.plot)
    print(report.compare(report.read(args.before), report.read(args.after)), end="")
    return 0


def _run(args: argparse.Namespace) -> int:
    if args.dim is not None and args.dim > 256:
        raise UserError(f"--dim: got {args.dim}; a packed table has at most 256 columns")
    if args.ids is not None:
        parse_ids(args.ids)
    if args.json is not None and args.json.is_dir():
        raise UserError(f"--json: {args.json} is a folder; give a file")
    if args.json is not None and not args.json.resolve().parent.is_dir():
        raise UserError(f"--json: {args.json.parent} is not a folder; create it first")
    if args.threads is not None and args.threads > MAX_THREADS:
        raise UserError(f"--threads: got {args.threads}; give at most {MAX_THREADS}")
    names = args.provider.split(",") if args.provider else None
    plan = [(get_op(name), providers_of(name, names)) for name in args.op.split(",")]
    for op, providers in plan:
        if not providers:
            raise UserError(f"--provider: none of {args.provider} computes {op.name}; see `bench run --help`")
    threads = args.threads or machine.cpus()
    budget = args.budget or (QUICK.budget_s if args.quick else Options.budget_s)
    options = Options(threads=threads, rounds=QUICK.rounds if args.quick else Options.rounds, budget_s=budget)

    rows: list[report.Row] = []
    for op, providers in plan:
        cases: list[Case] = override(
            op.cases(args.quick),
            rows=args.rows,
            dim=args.dim,
            density=args.density,
            batch=args.batch,
            ids=args.ids,
            dtype=args.dtype,
            kind=args.kind,
            cold=False if args.warm else True if args.cold else None,
        )
        done = run_op(op, cases, providers, options, lambda line: print(line, file=sys.stderr))
        print(report.table(done))
        rows += done
    if args.json is not None:
        report.write(rows, args.json)
    return 1 if any(row["correct"] is False and is_ours(row["provider"]) for row in rows) else 0


def _report(path: Path, plot: Path | None) -> int:
    rows = report.read(path)
    print(report.table(rows))
    target = plot or path.with_suffix(".png")
    if report.plot(rows, target):
        print(f"plot: {target}")
    else:
        print("no plot: matplotlib is not installed (`pip install recsparse[plot]`)")
    return 0
