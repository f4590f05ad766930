"""The command `recsparse`. Each command imports what it needs when it runs, so that `--help` answers at once.

Exit status: 0 done; 2 a user's mistake, or a file or memory that the system refuses, told in one line on stderr; 3 a
training that diverged; 130 or 143 stopped by a signal, while training after a checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import recsparse
from recsparse.errors import RecsparseError, UserError

HELP = """\
usage: recsparse COMMAND [options]

Train recommenders whose embedding table keeps, trains and stores only some of its weights.

commands:
{commands}

options:
  -h, --help   this text; `recsparse COMMAND --help` explains a command
  --version    version and exit
  --debug      with any command: show the traceback of an error

examples:
  recsparse demo
  recsparse train --data.path DIR --policy.name dsl --policy.budget 20%
  recsparse eval --run runs/NAME
"""


class Command(NamedTuple):
    help: str
    run: Callable[[list[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _dispatch(arguments)
    except RecsparseError as error:
        if debug:
            raise
        print(f"recsparse: error: {' '.join(str(error).split())}", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("recsparse: error: interrupted", file=sys.stderr)
        return 130
    except (OSError, MemoryError, RuntimeError) as error:
        reason = _out_of_resource(error)
        if debug or reason is None:
            raise
        print(f"recsparse: error: {reason}", file=sys.stderr)
        return 2


def _out_of_resource(error: Exception) -> str | None:
    """One line for a file or memory that the system refused; None for any other error, which is a bug."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error.strerror
    # torch's allocator reports a failed allocation as a plain RuntimeError.
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "not enough memory; take fewer rows, columns or weights"
    return None


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = (f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
        print(HELP.format(commands="\n".join(lines)), end="")
        return 0
    if arguments[0] == "--version":
        print(f"recsparse {recsparse.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}; the commands are {', '.join(COMMANDS)}")
    return COMMANDS[name].run(rest)


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are `UserError`."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def _demo(argv: list[str]) -> int:
    from recsparse.demo import EPOCHS, run_demo

    parser = Parser(
        prog="recsparse demo", description="Dense, small dense and sparse (DSL) training at two byte budgets."
    )
    parser.add_argument("--folder", default="runs/demo", help="where results go; an earlier demo there is replaced")
    parser.add_argument("--preset", default="demo", help="generated data set (default: demo)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"most epochs of each run (default: {EPOCHS})")
    options = parser.parse_args(argv)
    return run_demo(options.folder, options.preset, options.epochs)


def _train(argv: list[str]) -> int:
    from recsparse.commands import train

    return train(argv)


def _eval(argv: list[str]) -> int:
    from recsparse.commands import evaluate_run

    parser = Parser(prog="recsparse eval", description="Full-ranking metrics of the best model of a run.")
    parser.add_argument("--run", required=True, metavar="RUN", help="run folder, for example runs/NAME")
    parser.add_argument("--split", choices=["test", "valid"], default="test", help="items to find (default: test)")
    parser.add_argument(
        "--topk", type=int, nargs="+", default=[20], metavar="K", help="lengths of the ranking (default: 20)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args(argv)
    return evaluate_run(options.run, options.split, options.topk, options.json)


def _bench(argv: list[str]) -> int:
    if argv[:1] == ["scale"]:
        from recsparse.scale import main as scale

        return scale(argv[1:])
    if argv[:1] == ["epoch"]:
        from recsparse.bench.epoch import main as epoch

        return epoch(argv[1:])
    if argv[:1] == ["graph-memory"]:
        from recsparse.bench.graph_memory import main as graph_memory

        return graph_memory(argv[1:])
    from recsparse.bench.cli import main as bench

    return bench(argv)


def _compare(argv: list[str]) -> int:
    from recsparse.compare import main as compare

    return compare(argv)


def _sweep(argv: list[str]) -> int:
    from recsparse.sweep import main as sweep

    return sweep(argv)


def _profile(argv: list[str]) -> int:
    from recsparse.profiling import main as profile

    return profile(argv)


def _data(argv: list[str]) -> int:
    from recsparse.commands import data_download, data_split, data_stats

    parser = Parser(prog="recsparse data", description="Look at data sets, or fetch a public one.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    stats = actions.add_parser("stats", help="counts and hash of a folder or a generated preset")
    stats.add_argument("path", help="folder with train.txt and test.txt, or a preset name")
    download = actions.add_parser("download", help="fetch a public data set and check its sha256 (uses the network)")
    download.add_argument("name", help="name in the registry, for example gowalla")
    download.add_argument("--folder", default="data", help="parent folder (default: data)")
    split = actions.add_parser("split", help="deal all interactions of a folder out anew, user by user")
    split.add_argument("path", help="folder with train.txt and test.txt, and valid.txt if there is one")
    split.add_argument("folder", help="new folder for train.txt, valid.txt and test.txt")
    split.add_argument("--shares", default="50,25,25", help="per cent of train,valid,test (default: 50,25,25)")
    split.add_argument("--seed", type=int, default=0, help="of the shuffle (default: 0)")
    options = parser.parse_args(argv)
    if options.action == "split":
        return data_split(options.path, options.folder, options.shares, options.seed)
    return data_stats(options.path) if options.action == "stats" else data_download(options.name, options.folder)


def _doctor(argv: list[str]) -> int:
    from recsparse.doctor import run_doctor

    Parser(
        prog="recsparse doctor", description="What this machine offers: versions, backends, and why not."
    ).parse_args(argv)
    return run_doctor()


COMMANDS = {
    "demo": Command("compare dense, small dense and sparse training on generated data, in two minutes", _demo),
    "train": Command("train one recommender on a folder with train.txt and test.txt, or on a preset", _train),
    "compare": Command("policies at equal bytes, side by side: runs what is missing, one table and plot", _compare),
    "sweep": Command("hyper-parameter search, the same number of trials for each policy (needs Optuna)", _sweep),
    "eval": Command("full-ranking metrics of a finished run", _eval),
    "bench": Command(
        "ops against peers (`bench run`), one huge table (`scale`), LightGCN (`epoch`, `graph-memory`)", _bench
    ),
    "profile": Command("time, bytes and share of the machine's ceiling of each op in a short training run", _profile),
    "data": Command("statistics of a data set, download of a public one, a split of one's own", _data),
    "doctor": Command("versions, instruction sets, and which backends load or why not", _doctor),
}
