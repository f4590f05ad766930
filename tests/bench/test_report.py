from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recsparse.bench import report
from recsparse.errors import UserError


def row(provider: str, p50: float | None, *, op: str = "lookup", batch: int = 16, **more: Any) -> dict[str, Any]:
    return {
        "op": op,
        "case": {"batch": batch},
        "shown": f"batch={batch}",
        "unit": "rows",
        "provider": provider,
        "threads": 2,
        "p20_us": None if p50 is None else 0.9 * p50,
        "p50_us": p50,
        "p80_us": None if p50 is None else 1.1 * p50,
        "units_per_s": None if p50 is None else batch / p50 * 1e6,
        "correct": p50 is not None,
        **more,
    }


def test_ours_is_compared_with_the_best_peer_and_losses_are_shown() -> None:
    rows = [row("recsparse", 20.0), row("slow", 90.0), row("fast", 10.0), row("wrong", None)]
    ratio = report.speedup(rows)
    assert ratio is not None
    assert ratio[1] == "fast"
    assert ratio[0] == pytest.approx(0.5)
    text = report.table(rows)
    assert "best peer (fast): 0.50x, SLOWER" in text
    places = [text.index(f"\n  {name} ") for name in ("fast", "recsparse", "slow", "wrong")]
    assert places == sorted(places)


def test_our_variants_are_no_peers() -> None:
    rows = [row("recsparse", 20.0), row("recsparse[one batch a call]", 5.0), row("peer", 40.0)]
    assert report.speedup(rows) == (pytest.approx(2.0), "peer")
    assert report.speedup(rows[:2]) is None


def test_compare_flags_only_what_is_beyond_noise() -> None:
    before = [row("recsparse", 100.0), row("a", 100.0), row("b", 100.0), row("gone", 1.0)]
    after = [row("recsparse", 50.0), row("a", 110.0), row("b", 200.0)]
    lines = {line.split()[0]: line for line in report.compare(before, after).splitlines() if line.startswith("  ")}
    assert "2.00x" in lines["recsparse"]
    assert lines["recsparse"].endswith("faster")
    assert lines["a"].endswith("within noise")
    assert lines["b"].endswith("SLOWER")
    assert "gone" not in lines


def test_compare_says_when_the_machines_differ() -> None:
    before, after = [row("a", 1.0, machine={"cpu": "x"})], [row("a", 1.0, machine={"cpu": "y"})]
    assert "different machines" in report.compare(before, after)
    assert "different machines" not in report.compare(before, before)


def test_compare_needs_something_in_common() -> None:
    with pytest.raises(UserError, match="no timed case"):
        report.compare([row("a", 1.0)], [row("a", 1.0, batch=17)])


def test_files_round_trip_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    rows = [row("recsparse", 20.0), row("wrong", None)]
    path = tmp_path / "rows.json"
    report.write(rows, path)
    assert report.read(path) == rows
    assert [file.name for file in tmp_path.iterdir()] == ["rows.json"]

    for text, message in (("[1", "not JSON"), ("{}", "not a list"), (json.dumps([{"op": "x"}]), "not a list")):
        path.write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            report.read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        report.read(tmp_path / "absent.json")


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    assert report.plot([row("recsparse", 20.0), row("peer", 40.0), row("wrong", None)], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="nothing to plot"):
        report.plot([row("wrong", None)], path)
