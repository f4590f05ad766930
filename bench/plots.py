"""Plots of result rows: roofline, speed of the providers, and speed against density. Needs matplotlib."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from recsparse.errors import UserError

from .registry import is_ours
from .rows import CEILING, Row, by_case, title

Groups = list[list[Row]]


def write(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draws what the rows allow into ``folder`` and returns the files: ``roofline.png`` where there is a byte model,
    ``speed.png``, and ``density.png`` where a case comes in several densities. Raises UserError if nothing was timed,
    or the folder cannot be written."""
    timed = [row for row in rows if row["units_per_s"] and row["op"] != CEILING]
    if not timed:
        raise UserError(f"{folder}: nothing to plot, no provider was timed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--plots {folder}: cannot be made ({error.strerror}); give another folder") from None
    roofs = [row for row in rows if row["op"] == CEILING]
    drawn = [
        _draw(folder / "roofline.png", by_case([row for row in timed if row.get("bytes_model")]), _roofline(roofs)),
        _draw(folder / "speed.png", by_case(timed), _bars),
        _draw(folder / "density.png", _by_all_but_density(timed), _against_density),
    ]
    return [path for path in drawn if path is not None]


def _draw(path: Path, groups: Groups, panel: Callable[[Any, list[Row]], None]) -> Path | None:
    if not groups:
        return None
    columns = min(2, len(groups))
    lines = -(-len(groups) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(7.5 * columns, 4.2 * lines), squeeze=False)
    for axis in axes.flat[len(groups) :]:
        axis.set_axis_off()
    for axis, group in zip(axes.flat, groups, strict=False):
        panel(axis, group)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def _style(row: Row) -> dict[str, Any]:
    return {"marker": "*", "markersize": 12, "zorder": 3} if is_ours(row["provider"]) else {"marker": "o"}


def _roofline(roofs: Sequence[Row]) -> Callable[[Any, list[Row]], None]:
    """Work per second against work per byte: what a ceiling allows is a straight line, and a provider's distance below
    it is what it leaves unused."""

    def panel(axis: Any, group: list[Row]) -> None:
        points = [(row, row["units_per_s"] * row["p50_us"] / 1e6 / row["bytes_model"]) for row in group]
        ends = [0.5 * min(x for _, x in points), 2 * max(x for _, x in points)]
        for roof in roofs:
            if roof["threads"] == group[0]["threads"] and roof["provider"] != "read":
                style = "-" if roof["case"]["level"] == "memory" else ":"
                label = f"{roof['case']['level']} {roof['provider']}, {roof['gbps']:.3g} GB/s"
                axis.plot(ends, [roof["gbps"] * 1e9 * x for x in ends], style, color="gray", lw=1)
                axis.annotate(label, (ends[0], roof["gbps"] * 1e9 * ends[0]), fontsize=6, color="gray")
        for row, x in points:
            axis.plot([x], [row["units_per_s"]], linestyle="", label=row["provider"], **_style(row))
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(title(group[0]), fontsize=8, loc="left")
        axis.set_xlabel(f"{group[0]['unit']} a byte (byte model of the provider)", fontsize=8)
        axis.set_ylabel(f"{group[0]['unit']} a second", fontsize=8)
        axis.legend(fontsize=7)

    return panel


def _bars(axis: Any, group: list[Row]) -> None:
    group = sorted(group, key=lambda row: row["units_per_s"])
    axis.barh(
        [row["provider"] for row in group],
        [row["units_per_s"] / 1e6 for row in group],
        color=["tab:blue" if is_ours(row["provider"]) else "tab:gray" for row in group],
    )
    axis.set_title(title(group[0]), fontsize=8, loc="left")
    axis.set_xlabel(f"million {group[0].get('unit', 'units')} a second", fontsize=8)


def _by_all_but_density(rows: Sequence[Row]) -> Groups:
    """Rows that differ in density (and index kind) alone, where there are several densities."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        case = {name: value for name, value in row["case"].items() if name not in ("density", "kind")}
        groups.setdefault(json.dumps([row["op"], case, row["threads"]], sort_keys=True), []).append(row)
    return [group for group in groups.values() if len({row["case"].get("density") for row in group}) > 1]


def _against_density(axis: Any, group: list[Row]) -> None:
    lines: dict[str, list[Row]] = {}
    for row in group:
        lines.setdefault(row["provider"], []).append(row)
    for name, own in lines.items():
        own.sort(key=lambda row: row["case"]["density"])
        axis.plot(
            [row["case"]["density"] for row in own],
            [row["units_per_s"] for row in own],
            label=name,
            **_style(own[0]),
        )
    fixed = {name: value for name, value in group[0]["case"].items() if name in ("rows", "dim", "batch") and value}
    words = " ".join(f"{name}={value}" for name, value in fixed.items())
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_title(f"{group[0]['op']}  {words}  threads={group[0]['threads']}", fontsize=8, loc="left")
    axis.set_xlabel("density", fontsize=8)
    axis.set_ylabel(f"{group[0].get('unit', 'units')} a second", fontsize=8)
    axis.legend(fontsize=7)
