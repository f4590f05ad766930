"""What a sweep leaves: a row a trial, a report on the best of each policy, and its configuration."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from recsparse import config as configuration
from recsparse import config_reader, report_file
from recsparse.config import RunConfig
from recsparse.report import MIB, Result
from recsparse.runs import RunFolder


@dataclass(frozen=True)
class Trial:
    """A finished or failed trial.

    Attributes:
        model, policy, budget: of the study; budget is empty for a policy that takes none.
        number: from 0 in its study.
        values: what was searched, as flags give it.
        quality: best recall@20 of the run on the split that selects; None: it failed.
        failed: why it failed; empty: it did not.
        wall: seconds of the run.
        run: where it is.
    """

    model: str
    policy: str
    budget: str
    number: int
    values: dict[str, str]
    quality: float | None
    failed: str
    wall: float
    run: RunFolder

    def row(self) -> dict[str, Any]:
        """Line of results.jsonl. Test metrics are not in it: only those of the best trial are anybody's business."""
        facts: dict[str, Any] = {}
        if not self.failed:
            result = Result.read(self.run)
            final = result.final
            facts = {"selected_on": final["selected_on"], "epochs": len(result.epochs)}
            facts |= {"table_bytes": result.table_bytes, "state_bytes": result.state_bytes}
            facts |= {name: final[name] for name in ("data", "data_hash", "version")}
            facts |= {"stamp": final["stamp"]} if "stamp" in final else {}
        return {
            "model": self.model,
            "policy": self.policy,
            "budget": self.budget,
            "trial": self.number,
            "state": "failed" if self.failed else "complete",
            **({"reason": self.failed} if self.failed else {}),
            "values": {key: plain(text) for key, text in self.values.items()},
            "recall@20": self.quality,
            **facts,
            "wall_seconds": self.wall,
            "run": str(self.run.path),
        }


def plain(text: str) -> Any:
    """The value of a flag as a number, a truth value or a list where it is one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def short(values: dict[str, str]) -> dict[str, str]:
    """Numbers with four digits, for the eye."""
    return {key: f"{number:.4g}" if isinstance(number := plain(text), float) else text for key, text in values.items()}


def best(trials: Sequence[Trial]) -> Trial | None:
    """The first of those with the largest quality; None if all failed."""
    finished = [trial for trial in trials if not trial.failed]
    return max(finished, key=lambda trial: (trial.quality or 0.0, -trial.number)) if finished else None


HEADINGS = [
    *("policy", "budget", "best trial", "selected at", "recall@20", "ndcg@20", "table MiB", "of dense"),
    *("training MiB", "trials", "failed", "wall s"),
]
FOOTNOTE = (
    "selected at: recall@20 of the best trial on the split that selects. recall@20, ndcg@20: the same model on test. "
    "training: table and optimiser state at their largest. wall: all trials of the policy together."
)


def cells_of(trials: Sequence[Trial]) -> list[str]:
    first, found = trials[0], best(trials)
    failed = sum(bool(trial.failed) for trial in trials)
    sums = [str(len(trials)), str(failed), f"{sum(trial.wall for trial in trials):.0f}"]
    if found is None:
        return [first.policy, first.budget or "-", *["-"] * 7, *sums]
    result = Result.read(found.run)
    return [
        first.policy,
        first.budget or "-",
        str(found.number),
        f"{found.quality:.4f}",
        f"{result.final['test_recall@20']:.4f}",
        f"{result.final['test_ndcg@20']:.4f}",
        f"{result.table_bytes / MIB:.2f}",
        f"{100 * result.share:.1f} %",
        f"{result.state_bytes / MIB:.2f}",
        *sums,
    ]


def stamp(studies: Sequence[Sequence[Trial]]) -> str:
    """Which split chose the models and their hyper-parameters."""
    finals = [Result.read(found.run).final for trials in studies if (found := best(trials))]
    if any("stamp" in final for final in finals):
        return "TEST-SELECTED: models and hyper-parameters were chosen on the test split, as protocol `paper` says."
    return (
        "Models and hyper-parameters were chosen on held-out validation items; test is shown for the chosen ones alone."
    )


def print_table(studies: Sequence[Sequence[Trial]]) -> None:
    """The best trial of each policy, on standard output."""
    table = Table(*HEADINGS)
    for column in table.columns[2:]:
        column.justify = "right"
    for trials in studies:
        table.add_row(*cells_of(trials))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    console.print(table)
    console.print(FOOTNOTE)
    console.print(stamp(studies))


def write_files(folder: Path, studies: Sequence[Sequence[Trial]], wanted: int) -> Path:
    """results.jsonl, report.md and best-POLICY.yaml; returns the path of report.md."""
    begun = [trials for trials in studies if trials]
    rows = [json.dumps(trial.row()) + "\n" for trials in begun for trial in trials]
    report_file.write(folder / "results.jsonl", "".join(rows))
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---" + "|---:" * (len(HEADINGS) - 2) + "|"]
    lines += ["| " + " | ".join(cells_of(trials)) + " |" for trials in begun]
    parts = [f"# Sweep: {wanted} trials for each policy", "\n".join(lines), FOOTNOTE, stamp(begun)]
    if any(len(trials) < wanted for trials in studies):
        parts.append("**The sweep is not finished**; the same command goes on with it.")
    for trials in begun:
        found = best(trials)
        if found is None:
            continue
        file = folder / f"best-{found.policy}.yaml"
        parser = config_reader.build_parser("recsparse sweep")
        config = config_reader.parse(parser, [f"--config={found.run.config_file}"])
        report_file.write(file, configuration.to_yaml(dataclasses.replace(config, run=RunConfig())))
        values = ", ".join(f"{key} {value}" for key, value in short(found.values).items())
        parts.append(f"{found.policy}: {values or 'nothing was searched'}; `recsparse train --config {file}`.")
    facts = [Result.read(found.run).final for trials in begun if (found := best(trials))]
    if facts:
        parts.append(f"Data: {facts[0]['data']}, sha256 `{facts[0]['data_hash']}`; recsparse {facts[0]['version']}.")
    file = folder / "report.md"
    report_file.write(file, "\n\n".join(parts) + "\n")
    return file
