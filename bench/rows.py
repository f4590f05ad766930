"""Result rows, and the files that hold them: a JSON list with one object for each case and provider."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from recsparse.errors import UserError

from . import machine

Row = dict[str, Any]

CEILING = "ceiling"
"""Op of the rows that say what the machine can do; their providers are ``copy``, ``read`` and ``gather N B``."""

_NEEDED = {"op", "case", "provider", "threads", "p20_us", "p50_us", "p80_us", "units_per_s", "correct"}
_TIMES = ("p20_us", "p50_us", "p80_us", "first_us", "calls", "units_per_s")
_BYTES = ("bytes_model", "gbps", "ceiling_gbps", "pct_ceiling", "resident", "peak_bytes", "held_bytes")


def result_row(op: str, case: dict[str, Any], shown: str, unit: str, provider: str, threads: int) -> Row:
    """A row with nothing measured yet; bench/results/README.md explains the fields."""
    return {
        "op": op,
        "case": case,
        "shown": shown,
        "unit": unit,
        "provider": provider,
        "backend": None,
        "threads": threads,
        **dict.fromkeys((*_TIMES, *_BYTES, "correct")),
        "note": "",
        "machine": machine.describe(),
        "versions": machine.versions(),
        "git": machine.git(),
    }


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


def by_case(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows grouped by op, case and number of threads, in order of appearance."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        key = row["op"], json.dumps(row["case"], sort_keys=True), row["threads"]
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def title(row: Row) -> str:
    """Op, case and threads, in words."""
    return f"{row['op']}  {row.get('shown', '')}  threads={row['threads']}"
