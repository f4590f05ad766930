"""Tables and plots of finished runs."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from recsparse import report_file
from recsparse.budget import dense_nbytes
from recsparse.errors import UserError
from recsparse.runs import RunFolder

MIB = 1 << 20

FOOTNOTE = (
    "table: stored bytes, values and index, and their share of the dense fp32 table. state: table plus optimiser "
    "moments at their largest, exact. peak: largest resident memory of the training process above what it held after "
    "imports, so data set, evaluation and kernel buffers are in it. epoch: median seconds to sample, step and update "
    "the mask."
)


@dataclass(frozen=True)
class Result:
    """A finished run, from its metrics.jsonl.

    Attributes:
        name: label of the run.
        final: the final row.
        epochs: one row an epoch.
    """

    name: str
    final: dict[str, Any]
    epochs: list[dict[str, Any]]

    @classmethod
    def read(cls, run: RunFolder, name: str = "") -> Result:
        """The run in a folder.

        Raises:
            UserError: no finished run there.
        """
        rows = run.rows()
        final = [row for row in rows if row["event"] == "final"]
        if not final:
            raise UserError(f"{run.path} holds no finished run; train it with `recsparse train --resume {run.path}`")
        return cls(name or run.path.name, final[-1], [row for row in rows if row["event"] == "epoch"])

    @property
    def table_bytes(self) -> int:
        return self.final["bytes"]["values"] + self.final["bytes"]["index"]

    @property
    def state_bytes(self) -> int:
        """Table and optimiser state at their largest: a search that starts dense, or a dense training before
        quantisation, is in it."""
        return max(sum(row["bytes"].values()) for row in [*self.epochs, self.final])

    @property
    def share(self) -> float:
        """Stored bytes as a share of the dense table of the configured width."""
        return self.table_bytes / dense_nbytes(self.final["rows"], self.final["config"]["model"]["dim"])

    @property
    def peak_bytes(self) -> int:
        return self.final["peak_rss_bytes"] - self.final["baseline_rss_bytes"]

    @property
    def epoch_seconds(self) -> float:
        spent = [sum(row["seconds"][name] for name in ("sample", "step", "prune")) for row in self.epochs]
        return statistics.median(spent)

    def cells(self) -> list[str]:
        final = self.final
        return [
            self.name,
            f"{final['test_recall@20']:.4f}",
            f"{final['test_ndcg@20']:.4f}",
            f"{100 * final['nnz'] / (final['rows'] * final['config']['model']['dim']):.1f} %",
            f"{self.table_bytes / MIB:.2f}",
            f"{100 * self.share:.1f} %",
            f"{self.state_bytes / MIB:.2f}",
            f"{self.peak_bytes / MIB:.1f}",
            f"{self.epoch_seconds:.3f}",
        ]


HEADINGS = ["run", "recall@20", "ndcg@20", "kept", "table MiB", "of dense", "state MiB", "peak MiB", "epoch s"]


def stamp(results: Sequence[Result]) -> str:
    """A line that says which split chose the models."""
    if any("stamp" in result.final for result in results):
        return "TEST-SELECTED: the models were chosen on the test split, as protocol `paper` says."
    return "Models were chosen on held-out validation items; test was touched once."


def print_table(results: Sequence[Result]) -> None:
    """The results as a table on standard output."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    table = Table(*HEADINGS)
    for column in table.columns[1:]:
        column.justify = "right"
    for result in results:
        table.add_row(*result.cells())
    console.print(table)
    console.print(stamp(results))


def markdown_table(results: Sequence[Result]) -> str:
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" + "|---:" * (len(HEADINGS) - 1) + "|"]
    lines += ["| " + " | ".join(result.cells()) + " |" for result in results]
    return "\n".join(lines)


def write_report(folder: Path, title: str, results: Sequence[Result]) -> Path:
    """report.md, with quality.png beside it where matplotlib is there; returns the path of report.md."""
    plotted = plot(results, folder / "quality.png")
    first = results[0].final
    picture = "![quality against bytes, and by epoch](quality.png)"
    parts = [
        f"# {title}",
        markdown_table(results),
        f"{FOOTNOTE[0].upper()}{FOOTNOTE[1:]}",
        stamp(results),
        picture if plotted else report_file.NO_PLOT,
        f"Data: {first['data']}, sha256 `{first['data_hash']}`; {first['test_users']} test users "
        f"({first['test_users_dropped']} without test items are left out). Seed {first['seed']}, "
        f"{first['threads']} threads, recsparse {first['version']}.",
    ]
    file = folder / "report.md"
    report_file.write(file, "\n\n".join(parts) + "\n")
    return file


def plot(results: Sequence[Result], file: Path) -> bool:
    """Recall against stored bytes, and against epochs, as a PNG; False where matplotlib is missing."""
    pyplot = report_file.pyplot()
    if pyplot is None:
        return False
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for number, result in enumerate(results):
        colour = f"C{number % 10}"
        left.scatter([result.table_bytes / MIB], [result.final["test_recall@20"]], color=colour, label=result.name)
        key = f"{result.final['selected_on']}_recall@20"
        # Epochs are counted anew in each stage: the axis is epochs of the whole run, searching included.
        points = [(number, row[key]) for number, row in enumerate(result.epochs, 1) if key in row]
        right.plot([epoch for epoch, _ in points], [value for _, value in points], color=colour, marker=".")
    left.set(xlabel="stored table (MiB)", ylabel="test recall@20", xlim=(0, None), ylim=(0, None))
    right.set(xlabel="epoch, all stages", ylabel=f"{results[0].final['selected_on']} recall@20", ylim=(0, None))
    left.legend(fontsize="small")
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
    return True
