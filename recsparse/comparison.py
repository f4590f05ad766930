"""Tables and plots of a comparison: runs at equal bytes, averaged over their seeds."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from recsparse import report_file
from recsparse.report import MIB


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
        "![quality against bytes](quality.png)" if plotted else report_file.NO_PLOT,
        *_bucket_table(groups),
        f"Data: {first.data}, sha256 `{first.data_hash}`; recsparse {first.version}.",
    ]
    file = folder / "report.md"
    report_file.write(file, "\n\n".join(parts) + "\n")
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
    pyplot = report_file.pyplot()
    if pyplot is None:
        return False
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
