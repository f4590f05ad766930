"""Result files as text: the table of a run, ours against the best peer, a bar plot, and a comparison of two runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from recsparse.errors import UserError

from .registry import OURS, is_ours

Row = dict[str, Any]
_NEEDED = {"op", "case", "provider", "threads", "p20_us", "p50_us", "p80_us", "units_per_s", "correct"}


def read(path: Path) -> list[Row]:
    """Rows of a file that ``bench run --json`` wrote. Raises UserError if it is not one."""
    try:
        rows = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a file that `bench run --json` wrote"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON; give a file that `bench run --json` wrote") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= _NEEDED for row in rows):
        raise UserError(f"{path}: not a list of benchmark rows; give a file that `bench run --json` wrote")
    return rows


def write(rows: Sequence[Row], path: Path) -> None:
    """Write rows as a JSON list, at once: a reader never sees half a file."""
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(json.dumps(rows, indent=1) + "\n")
        fresh.replace(path)
    except OSError as error:
        raise UserError(
            f"--json {path}: cannot be written ({error.strerror}); give a path in a folder that exists"
        ) from error


def _key(row: Row) -> tuple[str, str, int]:
    return row["op"], json.dumps(row["case"], sort_keys=True), row["threads"]


def by_case(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows grouped by op, case and number of threads, in order of appearance."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault(_key(row), []).append(row)
    return list(groups.values())


def speedup(rows: Sequence[Row]) -> tuple[float, str] | None:
    """Work per second of ``recsparse`` over that of the fastest peer, and its name; None if either is missing."""
    timed = [row for row in rows if row["units_per_s"]]
    ours = [row for row in timed if row["provider"] == OURS]
    peers = [row for row in timed if not is_ours(row["provider"])]
    if not ours or not peers:
        return None
    best = max(peers, key=lambda row: row["units_per_s"])
    return ours[0]["units_per_s"] / best["units_per_s"], best["provider"]


def _number(value: float | None, scale: float = 1.0) -> str:
    if value is None:
        return "-"
    value *= scale
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _grid(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in (0, len(widths) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def table(rows: Sequence[Row]) -> str:
    """Text table: for each case the providers from fast to slow, then ours against the best peer, losses included."""
    parts: list[str] = []
    for group in by_case(rows):
        first = group[0]
        unit = first.get("unit", "units")
        parts.append(f"{first['op']}  {first.get('shown', '')}  threads={first['threads']}")
        lines = [["provider", "p20 us", "p50 us", "p80 us", f"M {unit}/s", "GB/s", "% roof", "peak MB", "note"]]
        for row in sorted(group, key=lambda row: -(row["units_per_s"] or 0)):
            lines.append(
                [
                    row["provider"],
                    *(_number(row[name]) for name in ("p20_us", "p50_us", "p80_us")),
                    _number(row["units_per_s"], 1e-6),
                    _number(row.get("gbps")),
                    _number(row.get("pct_ceiling")),
                    _number(row.get("peak_bytes"), 1e-6),
                    row.get("note", ""),
                ]
            )
        parts += ["  " + line for line in _grid(lines)]
        ratio = speedup(group)
        if ratio is not None:
            verdict = "faster" if ratio[0] >= 1 else "SLOWER"
            parts.append(f"  {OURS} against the best peer ({ratio[1]}): {ratio[0]:.2f}x, {verdict}")
        parts.append("")
    return "\n".join(parts)


def plot(rows: Sequence[Row], path: Path) -> bool:
    """Bar plot of work per second for each case; False if matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = [[row for row in group if row["units_per_s"]] for group in by_case(rows)]
    groups = [group for group in groups if group]
    if not groups:
        raise UserError(f"{path}: nothing to plot, no provider was timed")
    figure, axes = pyplot.subplots(len(groups), 1, figsize=(9, 1 + 1.8 * len(groups)), squeeze=False)
    for axis, group in zip(axes[:, 0], groups, strict=True):
        group = sorted(group, key=lambda row: row["units_per_s"])
        axis.barh(
            [row["provider"] for row in group],
            [row["units_per_s"] / 1e6 for row in group],
            color=["tab:blue" if is_ours(row["provider"]) else "tab:gray" for row in group],
        )
        axis.set_title(f"{group[0]['op']}  {group[0].get('shown', '')}", fontsize=9, loc="left")
        axis.set_xlabel(f"million {group[0].get('unit', 'units')} a second", fontsize=8)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def compare(before: Sequence[Row], after: Sequence[Row]) -> str:
    """Ratio of the median times of two runs, row by row; flagged where the p20-p80 intervals do not overlap."""
    old = {(_key(row), row["provider"]): row for row in before if row["p50_us"]}
    lines = [["provider", "before us", "after us", "speed-up", ""]]
    heading: list[tuple[int, str]] = []
    for group in by_case(after):
        pairs = [(old.get((_key(row), row["provider"])), row) for row in group if row["p50_us"]]
        found = [(a, b) for a, b in pairs if a is not None]
        if found:
            heading.append(
                (len(lines), f"{group[0]['op']}  {group[0].get('shown', '')}  threads={group[0]['threads']}")
            )
        for a, b in found:
            flag = "faster" if b["p80_us"] < a["p20_us"] else "SLOWER" if b["p20_us"] > a["p80_us"] else "within noise"
            ratio = f"{a['p50_us'] / b['p50_us']:.2f}x"
            lines.append([b["provider"], _number(a["p50_us"]), _number(b["p50_us"]), ratio, flag])
    if len(lines) == 1:
        raise UserError("the two files have no timed case and provider in common; compare runs of the same cases")
    text = ["  " + line for line in _grid(lines)]
    for place, line in reversed(heading):
        text.insert(place, line)
    machines = {json.dumps(row.get("machine"), sort_keys=True) for row in (*before, *after)}
    if len(machines) > 1:
        text.append("The runs come from different machines: ratios show the machines as much as the code.")
    return "\n".join(text) + "\n"
