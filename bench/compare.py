"""Two runs of the same cases, row by row: ratios, and which changes are larger than the noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from recsparse.errors import UserError

from .registry import is_ours
from .report import grid, number
from .rows import Row, by_case, title


class Comparison(NamedTuple):
    text: str
    worse: bool
    """One of our rows is slower beyond noise, or no longer right."""


def verdict(before: Row, after: Row) -> str:
    """`faster`, `SLOWER` or `within noise`: beyond noise are changes after which the p20-p80 intervals part."""
    if after["p80_us"] < before["p20_us"]:
        return "faster"
    return "SLOWER" if after["p20_us"] > before["p80_us"] else "within noise"


def merge(runs: Sequence[Sequence[Row]]) -> list[Row]:
    """One list from several runs of the same cases: the mean of the medians, and the widest p20-p80 interval, so that
    what changes from run to run counts as noise. A row that one of the runs lacks, or has no time for, is left out,
    unless it is wrong there."""
    found: dict[Any, list[Row]] = {}
    for run in runs:
        for row in run:
            key = row["op"], json.dumps(row["case"], sort_keys=True), row["threads"], row["provider"]
            found.setdefault(key, []).append(row)
    merged = []
    for same in found.values():
        wrong = [row for row in same if row["correct"] is False]
        if wrong:
            merged.append(wrong[0])
        elif len(same) == len(runs) and all(row["p50_us"] for row in same):
            merged.append(
                same[0]
                | {
                    "p20_us": min(row["p20_us"] for row in same),
                    "p50_us": sum(row["p50_us"] for row in same) / len(same),
                    "p80_us": max(row["p80_us"] for row in same),
                }
            )
    return merged


def compare(before: Sequence[Row], after: Sequence[Row]) -> Comparison:
    """Ratio of the median times of two runs. Cases are matched by the fields that both runs know. Raises UserError if
    they have nothing in common."""
    known: dict[str, set[str]] = {}
    for row in (*before, *after):
        known[row["op"]] = known.get(row["op"], set(row["case"])) & set(row["case"])

    def key(row: Row) -> Any:
        case = {name: value for name, value in row["case"].items() if name in known[row["op"]]}
        return row["op"], json.dumps(case, sort_keys=True), row["threads"], row["provider"]

    old = {key(row): row for row in before if row["p50_us"]}
    lines = [["provider", "before us", "after us", "speed-up", ""]]
    heading: list[tuple[int, str]] = []
    worse = False
    for group in by_case(after):
        found = [
            (old[key(row)], row) for row in group if key(row) in old and (row["p50_us"] or row["correct"] is False)
        ]
        if found:
            heading.append((len(lines), title(group[0])))
        for a, b in found:
            name = b["provider"]
            if b["correct"] is False:
                lines.append([name, number(a["p50_us"]), "-", "-", f"WRONG: {b.get('note', '')}"])
                worse |= is_ours(name)
                continue
            flag = verdict(a, b)
            worse |= flag == "SLOWER" and is_ours(name)
            lines.append([name, number(a["p50_us"]), number(b["p50_us"]), f"{a['p50_us'] / b['p50_us']:.2f}x", flag])
    if len(lines) == 1:
        raise UserError("the two runs have no timed case and provider in common; compare runs of the same cases")
    text = ["  " + line for line in grid(lines)]
    for place, line in reversed(heading):
        text.insert(place, line)
    machines = {json.dumps(row.get("machine"), sort_keys=True) for row in (*before, *after)}
    if len(machines) > 1:
        text.append("The runs come from different machines: ratios show the machines as much as the code.")
    return Comparison("\n".join(text) + "\n", worse)
