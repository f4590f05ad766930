"""`recsparse compare`: policies at equal bytes, side by side.

Every cell (model, policy, budget, seed) is a training run of its own, in a process of its own, so that its peak memory
is its own. What is finished is read, what stopped is resumed, what is missing is run; a row a run goes to
`results.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from recsparse import config as configuration
from recsparse import models, policies
from recsparse.checkpoint import load_table
from recsparse.cli import Parser
from recsparse.commands import open_dataset
from recsparse.data import Dataset
from recsparse.errors import UserError
from recsparse.evaluate import by_popularity
from recsparse.report import MIB, Result
from recsparse.runs import RunFolder

MODELS = ("mf", "lightgcn")
FREE_KEYS = ("run.folder", "run.name", "train.threads", "train.check_invariants")
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "kuairand-size",
        "policy": "dense,small_dense,dsl,lth",
        "budget": "20%,10%",
        "seeds": 1,
        "flags": ["--optim.lr=0.005", "--train.epochs=40", "--train.eval_every=5", "--train.patience=3"],
        "policy_flags": {
            "dsl": ["--policy.dsl.rounds=6", "--policy.dsl.round_epochs=6"],
            "lth": ["--policy.lth.rate=0.3"],
        },
    }
}
EXAMPLES = """examples:
  recsparse compare --preset quick
  recsparse compare --data DIR --policy dense,small_dense,dsl,lth --budget 20%,10%,5% --seeds 3 --optim.lr=0.002
  recsparse compare --data DIR --model mf,lightgcn --budget 10% --folder runs/both

flags that are not listed here are keys of `recsparse train`, the same for all runs"""


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


@dataclass(frozen=True)
class Row:
    """What `results.jsonl` keeps of a run: quality, exact bytes, memory and time, searching included."""

    model: str
    policy: str
    budget: str
    seed: int
    recall: float
    ndcg: float
    table_bytes: int
    share: float
    state_bytes: int
    peak_rss_bytes: int
    wall_seconds: float
    epochs: int
    protocol: str
    data: str
    data_hash: str
    version: str
    run: str
    buckets: list[dict[str, float]]


def main(argv: list[str]) -> int:
    """The command; see the module's description.

    Raises:
        UserError: bad flags, a run of another configuration in the folder, or a run that fails.
    """
    options, extra = _parse(argv)
    folder = Path(options.folder)
    cells = plan(_names(options.model), _names(options.policy), _names(options.budget), options.seeds)
    rows = []
    for number, cell in enumerate(cells, 1):
        flags = [*extra, *options.policy_flags.get(cell.policy, [])]
        run = RunFolder(folder / cell.name)
        print(
            f"{number}/{len(cells)} {cell.name}: {settle(run, command(cell, options.data, folder, flags))}", flush=True
        )
        rows.append(row_of(cell, run))
    _write_rows(folder / "results.jsonl", rows)
    groups = group(rows)
    print_table(groups)
    written = write_report(folder, groups)
    print(f"report: {written}")
    return 0


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(
        prog="recsparse compare",
        description="Train policies at equal bytes and compare quality, bytes, memory and time. A second call goes on "
        "where the first one stopped.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), help="a ready choice; other flags override it")
    parser.add_argument("--data", help="folder with train.txt and test.txt, or a generated preset")
    parser.add_argument("--model", default="mf", metavar="M[,M]", help="mf, lightgcn (default: mf)")
    parser.add_argument("--policy", metavar="P[,P]", help="default: dense,small_dense,dsl,lth")
    parser.add_argument("--budget", metavar="B[,B]", help="shares of dense fp32 or bytes (default: 20%%,10%%)")
    parser.add_argument("--seeds", type=int, help="runs of each cell, with seeds 0, 1, .. (default: 1)")
    parser.add_argument("--folder", default="runs/compare", help="parent of the runs (default: runs/compare)")
    options, extra = parser.parse_known_args(argv)
    ready: dict[str, Any] = PRESETS.get(options.preset or "", {})
    defaults: dict[str, Any] = {
        "policy": "dense,small_dense,dsl,lth",
        "budget": "20%,10%",
        "seeds": 1,
        "data": None,
    } | ready
    for name in ("data", "policy", "budget", "seeds"):
        if getattr(options, name) is None:
            setattr(options, name, defaults[name])
    options.policy_flags = defaults.get("policy_flags", {})
    if options.data is None:
        raise UserError("--data is missing; give a folder with train.txt and test.txt, or --preset quick")
    if options.seeds < 1:
        raise UserError(f"--seeds is {options.seeds}; it must be 1 or above")
    for flag in extra:
        if not flag.startswith("--") or "=" not in flag:
            raise UserError(f"{flag}: not a flag of compare; keys of `recsparse train` are given as --key=value")
    return options, [*defaults.get("flags", []), *extra]


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def plan(model_names: Sequence[str], policy_names: Sequence[str], budgets: Sequence[str], seeds: int) -> list[Cell]:
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
    for seed in range(seeds):
        for model in model_names:
            for policy in policy_names:
                chosen = budgets if policies.find(policy).sized else [""]
                cells += [Cell(model, policy, budget, seed) for budget in chosen]
    return cells


def command(cell: Cell, data: str, folder: Path, flags: Iterable[str]) -> list[str]:
    """Flags of `recsparse train` for a cell."""
    own = [f"--data.path={data}", f"--model.name={cell.model}", f"--policy.name={cell.policy}"]
    own += [f"--train.seed={cell.seed}", f"--run.folder={folder}", f"--run.name={cell.name}"]
    if cell.budget:
        own.append(f"--policy.budget={cell.budget}")
    return [*flags, *own]


def settle(run: RunFolder, flags: list[str]) -> str:
    """Sees to it that the run is finished; says what was done."""
    done = "trained"
    arguments = flags
    if run.path.exists():
        _check_same(run, flags)
        if any(row["event"] == "final" for row in run.rows()):
            return "was there"
        if run.checkpoint("last").exists():
            arguments, done = [f"--resume={run.path}"], "resumed"
        else:
            raise UserError(f"{run.path} stopped before its first checkpoint; remove that folder")
    found = subprocess.run(
        [sys.executable, "-m", "recsparse", "train", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if found.returncode:
        reason = found.stderr.strip().removeprefix("recsparse: error: ") or f"exit status {found.returncode}"
        raise UserError(f"{run.path.name}: {reason}")
    return done


def _check_same(run: RunFolder, flags: list[str]) -> None:
    parser = configuration.build_parser("recsparse compare")
    wanted = configuration.flatten(policies.resolve(configuration.parse(parser, flags)))
    if not run.config_file.is_file():
        raise UserError(f"{run.path} is no run (config.yaml is missing); give another --folder")
    there = configuration.flatten(configuration.parse(parser, [f"--config={run.config_file}"]))
    for key, value in wanted.items():
        same = there[key] == value or key in FREE_KEYS
        if key == "data.path":
            same = Path(str(there[key])).resolve() == Path(str(value)).resolve() or there[key] == value
        if not same:
            raise UserError(
                f"{run.path} was run with {key} {there[key]}, not {value}; give another --folder, or remove that run"
            )


def row_of(cell: Cell, run: RunFolder) -> Row:
    """The facts of a finished run, with recall by popularity of the items that are looked for."""
    result = Result.read(run)
    final = result.final
    config = configuration.parse(configuration.build_parser("recsparse compare"), [f"--config={run.config_file}"])
    dataset = open_dataset(config.data)
    table = load_table(run.checkpoint("best"))
    ranked = models.build(config, dataset).for_ranking(table)
    buckets = by_popularity(ranked, dataset) if isinstance(dataset, Dataset) else []
    return Row(
        **cell._asdict(),
        recall=final["test_recall@20"],
        ndcg=final["test_ndcg@20"],
        table_bytes=result.table_bytes,
        share=result.share,
        state_bytes=result.state_bytes,
        peak_rss_bytes=result.peak_bytes,
        wall_seconds=final["wall_seconds"],
        epochs=len(result.epochs),
        protocol=final["protocol"],
        data=final["data"],
        data_hash=final["data_hash"],
        version=final["version"],
        run=str(run.path),
        buckets=buckets,
    )


def _write_rows(file: Path, rows: Sequence[Row]) -> None:
    """Keeps the rows of runs that this call did not ask for."""
    kept = []
    if file.exists():
        names = {row.run for row in rows}
        kept = [line for line in file.read_text().splitlines() if json.loads(line)["run"] not in names]
    try:
        file.write_text("".join(line + "\n" for line in [*kept, *(json.dumps(asdict(row)) for row in rows)]))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from None


class Group(NamedTuple):
    """The runs of a cell that differ in the seed alone."""

    model: str
    policy: str
    budget: str
    rows: list[Row]

    def mean(self, name: str) -> float:
        return statistics.fmean(getattr(row, name) for row in self.rows)

    def spread(self, name: str) -> float:
        """Standard deviation of the seeds; NaN for one."""
        values = [getattr(row, name) for row in self.rows]
        return statistics.stdev(values) if len(values) > 1 else math.nan

    def shown(self, name: str) -> str:
        spread = self.spread(name)
        return f"{self.mean(name):.4f}" + ("" if math.isnan(spread) else f" ± {spread:.4f}")


def group(rows: Sequence[Row]) -> list[Group]:
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.model, row.policy, row.budget), []).append(row)
    return [Group(*key, same) for key, same in found.items()]


HEADINGS = [
    *("model", "policy", "budget", "recall@20", "ndcg@20", "against small dense", "table MiB", "of dense"),
    *("training MiB", "peak MiB", "wall s", "epochs"),
]


def cells_of(groups: Sequence[Group]) -> list[list[str]]:
    """A line for each group; `against small dense` is its recall relative to that of the same bytes."""
    small = {(each.model, each.budget): each.mean("recall") for each in groups if each.policy == "small_dense"}
    lines = []
    for each in groups:
        rival = small.get((each.model, each.budget))
        gain = "" if not rival or each.policy == "small_dense" else f"{100 * (each.mean('recall') / rival - 1):+.1f} %"
        lines.append(
            [
                each.model,
                each.policy,
                each.budget or "-",
                each.shown("recall"),
                each.shown("ndcg"),
                gain,
                f"{each.mean('table_bytes') / MIB:.2f}",
                f"{100 * each.mean('share'):.1f} %",
                f"{each.mean('state_bytes') / MIB:.2f}",
                f"{each.mean('peak_rss_bytes') / MIB:.0f}",
                f"{each.mean('wall_seconds'):.0f}",
                f"{each.mean('epochs'):.0f}",
            ]
        )
    return lines


FOOTNOTE = (
    "Mean over the seeds, ± standard deviation. table: exact stored bytes, values and index. training: table and "
    "optimiser state at their largest, a search that starts dense included. peak: resident memory of the process above "
    "its imports. wall: the whole run, searching included."
)


def stamp(groups: Sequence[Group]) -> str:
    """Which split chose the models."""
    if any(row.protocol == "paper" for each in groups for row in each.rows):
        return "TEST-SELECTED: the models were chosen on the test split, as protocol `paper` says."
    return "Models were chosen on held-out validation items; test was touched once for each."


def print_table(groups: Sequence[Group]) -> None:
    """The comparison as a table on standard output."""
    table = Table(*HEADINGS)
    for column in table.columns[3:]:
        column.justify = "right"
    for line in cells_of(groups):
        table.add_row(*line)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    console.print(table)
    console.print(FOOTNOTE)
    console.print(stamp(groups))


def write_report(folder: Path, groups: Sequence[Group]) -> Path:
    """report.md with the table, the plot and recall by popularity; returns its path."""
    plotted = plot(groups, folder / "quality.png")
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---|---" + "|---:" * (len(HEADINGS) - 3) + "|"]
    lines += ["| " + " | ".join(line) + " |" for line in cells_of(groups)]
    first = groups[0].rows[0]
    parts = [
        f"# {first.data} at equal bytes",
        "\n".join(lines),
        FOOTNOTE,
        stamp(groups),
        "![quality against bytes](quality.png)"
        if plotted
        else "No plot: matplotlib is not installed (`pip install 'recsparse[plot]'`).",
        *_bucket_table(groups),
        f"Data: {first.data}, sha256 `{first.data_hash}`; recsparse {first.version}.",
    ]
    file = folder / "report.md"
    try:
        file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from None
    return file


def _bucket_table(groups: Sequence[Group]) -> list[str]:
    """Recall@20 by popularity of the wanted items, most popular first; each bucket has a like share of train pairs."""
    if not all(row.buckets for each in groups for row in each.rows):
        return []
    count = len(groups[0].rows[0].buckets)
    items = [int(bucket["items"]) for bucket in groups[0].rows[0].buckets]
    lines = ["| model | policy | budget | " + " | ".join(f"{n} items" for n in items) + " |"]
    lines.append("|---|---|---" + "|---:" * count + "|")
    for each in groups:
        means = [statistics.fmean(row.buckets[place]["recall"] for row in each.rows) for place in range(count)]
        lines.append(
            f"| {each.model} | {each.policy} | {each.budget or '-'} | " + " | ".join(f"{m:.4f}" for m in means) + " |"
        )
    title = (
        "Recall@20 by popularity of the items that are looked for, the most popular first; every column has about the "
    )
    return [title + "same number of train interactions.", "\n".join(lines)]


def plot(groups: Sequence[Group], file: Path) -> bool:
    """Recall against stored bytes, a line for each policy; dense is a level, another fixed size a point. False where
    matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(each.model for each in groups))
    figure, axes = pyplot.subplots(1, len(names), figsize=(6 * len(names), 4.2), layout="constrained", squeeze=False)
    for axis, model in zip(axes[0], names, strict=True):
        mine = [each for each in groups if each.model == model]
        for number, policy in enumerate(dict.fromkeys(each.policy for each in mine)):
            points = sorted((each for each in mine if each.policy == policy), key=lambda each: each.mean("table_bytes"))
            recall = [each.mean("recall") for each in points]
            if policy == "dense":
                axis.axhline(recall[0], color="grey", linestyle="--", label=policy)
                continue
            spread = [0.0 if math.isnan(each.spread("recall")) else each.spread("recall") for each in points]
            stored = [each.mean("table_bytes") / MIB for each in points]
            # A policy without a budget has one size: a point.
            marker = "o" if points[0].budget else "D"
            axis.errorbar(stored, recall, yerr=spread, marker=marker, color=f"C{number}", label=policy)
        axis.set(title=model, xlabel="stored table (MiB)", ylabel="test recall@20", xlim=(0, None), ylim=(0, None))
        axis.legend(fontsize="small")
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
    return True
