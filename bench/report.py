"""Result rows as text: what the machine can do, then for each case the providers and ours against the best peer."""

from __future__ import annotations

from collections.abc import Sequence

from .registry import OURS, is_ours
from .rows import CEILING, Row, by_case, title

_MARKS = {"cache": "c", "mixed": "m"}
_MEANING = {
    "c": "what the input sets touch fits in the last-level cache: the roof is the cache's, inner caches can beat it",
    "m": "skewed ids: popular rows stay in the cache, the roof is memory's",
}


def speedup(rows: Sequence[Row]) -> tuple[float, str] | None:
    """Work per second of ``recsparse`` over that of the fastest peer, and its name; None if either is missing."""
    timed = [row for row in rows if row["units_per_s"]]
    ours = [row for row in timed if row["provider"] == OURS]
    peers = [row for row in timed if not is_ours(row["provider"])]
    if not ours or not peers:
        return None
    best = max(peers, key=lambda row: row["units_per_s"])
    return ours[0]["units_per_s"] / best["units_per_s"], best["provider"]


def number(value: float | None, scale: float = 1.0) -> str:
    """Three digits, or all before the point; - for None."""
    if value is None:
        return "-"
    value *= scale
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def grid(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells under one another; the first and the last column to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in (0, len(widths) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def markdown_grid(lines: Sequence[Sequence[str]]) -> list[str]:
    """The same as a Markdown table."""
    rule = ["---:" if 0 < column < len(lines[0]) - 1 else "---" for column in range(len(lines[0]))]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return ["| " + " | ".join(line) + " |" for line in (cells[0], rule, *cells[1:])]


def table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Ceilings first; then for each case the providers, fast to slow, and ours against the best peer, losses too."""
    layout = markdown_grid if markdown else grid
    indent = "" if markdown else "  "
    parts: list[str] = []
    for group in sorted(by_case(rows), key=lambda group: group[0]["op"] != CEILING):
        heading = title(group[0])
        parts += [f"### {heading}", ""] if markdown else [heading]
        lines, notes = (_ceiling_lines(group), []) if group[0]["op"] == CEILING else _case_lines(group)
        parts += [indent + line for line in layout(lines)]
        parts += ["", *notes] if markdown else [indent + note for note in notes]
        parts.append("")
    return "\n".join(parts)


def _ceiling_lines(group: Sequence[Row]) -> list[list[str]]:
    lines = [["ceiling", "GB/s", "M lines/s", ""]]
    for row in group:
        name, size = row["provider"], 0
        if name.startswith("gather"):
            size = int(name.split()[1])
        lines.append([name, number(row["gbps"]), number(row["gbps"] / size, 1e3) if size else "-", ""])
    return lines


def _case_lines(group: Sequence[Row]) -> tuple[list[list[str]], list[str]]:
    """Cells, and the lines below them."""
    unit = group[0].get("unit", "units")
    lines = [["provider", "p20 us", "p50 us", "p80 us", "first us", f"M {unit}/s", "GB/s", "% roof", "peak MB", "note"]]
    marks = set()
    for row in sorted(group, key=lambda row: -(row["units_per_s"] or 0)):
        mark = _MARKS.get(row.get("resident") or "", "") if row.get("pct_ceiling") is not None else ""
        marks.add(mark)
        lines.append(
            [
                row["provider"],
                *(number(row.get(name)) for name in ("p20_us", "p50_us", "p80_us", "first_us")),
                number(row["units_per_s"], 1e-6),
                number(row.get("gbps")),
                number(row.get("pct_ceiling")) + mark,
                number(row.get("peak_bytes"), 1e-6),
                row.get("note", ""),
            ]
        )
    notes = [f"{mark}: {_MEANING[mark]}" for mark in sorted(marks - {""})]
    ratio = speedup(group)
    if ratio is not None:
        word = "faster" if ratio[0] >= 1 else "SLOWER"
        notes.append(f"{OURS} against the best peer ({ratio[1]}): {ratio[0]:.2f}x, {word}")
    return lines, notes
