"""The axes of `bench run`: flags that replace a field of the default cases, by one value or by a list of values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from recsparse import arguments
from recsparse.errors import UserError
from recsparse.table import DTYPES

from . import graphs
from .inputs import parse_ids
from .registry import Case, Op, override

KINDS = ("bits", "cols8", "full", "prefix")
ROW_OPTIMIZERS = ("adam", "rowwise_adagrad")


def _columns(text: str) -> int:
    value = arguments.count(text)
    if value > 256:
        raise argparse.ArgumentTypeError(f"a packed table has at most 256 columns, got {text}")
    return value


def _distribution(text: str) -> str:
    try:
        parse_ids(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--ids: ")) from None
    return text


def _graph(text: str) -> str:
    try:
        return graphs.parse(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--graph: ")) from None


def _one_of(names: Collection[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text!r}")
        return text

    return parse


class Axis(NamedTuple):
    parse: Callable[[str], Any]
    metavar: str
    help: str


AXES = {
    "rows": Axis(arguments.count, "N", "rows of the table, or number of values for select"),
    "dim": Axis(_columns, "D", "columns, at most 256"),
    "density": Axis(arguments.density, "X", "share of kept weights, in (0, 1]"),
    "batch": Axis(arguments.count, "B", "ids, bags, samples, triples or clicks of a call"),
    "bag": Axis(arguments.count, "L", "ids of a bag"),
    "ids": Axis(_distribution, "uniform|zipf:A", "distribution of the ids"),
    "dtype": Axis(_one_of(DTYPES), "|".join(DTYPES), "type of our weights; peers say theirs"),
    "kind": Axis(_one_of(KINDS), "|".join(KINDS), "index kind of our table"),
    "graph": Axis(_graph, "DIR|NAME", f"folder with train.txt, or a generated graph: {', '.join(graphs.GENERATED)}"),
    "optimizer": Axis(_one_of(ROW_OPTIMIZERS), "|".join(ROW_OPTIMIZERS), "optimiser that updates the rows"),
}


def add(parser: argparse.ArgumentParser) -> None:
    """The flags. Each takes a list: several of them give all combinations."""
    group = parser.add_argument_group(
        "axes",
        "Each replaces that field in the default cases. Lists such as 0.05,0.1,0.2 are allowed, and several lists give "
        "all combinations. An axis that a chosen op does not have is refused.",
    )
    for name, axis in AXES.items():
        group.add_argument(
            f"--{name}", type=arguments.listed(axis.parse), metavar=f"{axis.metavar}[,..]", help=axis.help
        )
    heat = group.add_mutually_exclusive_group()
    heat.add_argument("--cold", action="store_true", help="rotate over many input sets (the default)")
    heat.add_argument("--warm", action="store_true", help="reuse four input sets")


def given(options: argparse.Namespace) -> dict[str, list[Any]]:
    """The axes on the command line, with their values."""
    chosen = {name: getattr(options, name) for name in AXES if getattr(options, name) is not None}
    if options.cold or options.warm:
        chosen["cold"] = [options.cold]
    return chosen


def check(ops: Sequence[Op], chosen: dict[str, list[Any]]) -> None:
    """Raises UserError if one of ``ops`` ignores a chosen axis."""
    for name in chosen:
        without = [op.name for op in ops if name not in op.shown]
        if without:
            flag = "--warm and --cold" if name == "cold" else f"--{name}"
            having = [op.name for op in ops if name in op.shown]
            advice = f"--op {','.join(having)}" if having else f"it has {_flags(ops[0])}"
            raise UserError(f"{flag}: {', '.join(without)} has no such axis; {advice}")


def _flags(op: Op) -> str:
    return ", ".join("--cold|--warm" if name == "cold" else f"--{name}" for name in op.shown)


def cases(op: Op, quick: bool, chosen: dict[str, list[Any]], device: str = "cpu") -> list[Case]:
    """The cases of an op on a device with the chosen axes put in."""
    found = override(op.cases(quick, device), device=[device])
    if "density" in chosen and "kind" not in chosen:
        # The default case of a full table becomes one of the usual kind where weights are missing.
        sparse = [value for value in chosen["density"] if value < 1]
        full = [case for case in found if case.kind == "full"]
        found = [case for case in found if case.kind != "full"]
        more = override(full, **chosen | {"density": sparse, "kind": ["bits"]}) if sparse else []
        whole = override(full, **chosen | {"density": [1.0]}) if 1.0 in chosen["density"] else []
        return list(dict.fromkeys([*override(found, **chosen), *more, *whole]))
    return override(found, **chosen)
