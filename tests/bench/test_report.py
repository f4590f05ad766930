from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recsparse.bench import compare, report, rows
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
    lines = {
        line.split()[0]: line for line in compare.compare(before, after).text.splitlines() if line.startswith("  ")
    }
    assert "2.00x" in lines["recsparse"]
    assert lines["recsparse"].endswith("faster")
    assert lines["a"].endswith("within noise")
    assert lines["b"].endswith("SLOWER")
    assert "gone" not in lines


def test_compare_is_worse_only_if_ours_is_slower_or_wrong() -> None:
    def worse(before: dict[str, Any], after: dict[str, Any]) -> bool:
        return compare.compare([before, row("other", 5.0)], [after, row("other", 5.0)]).worse

    assert not worse(row("recsparse", 100.0), row("recsparse", 110.0))
    assert not worse(row("recsparse", 100.0), row("recsparse", 50.0))
    assert not worse(row("peer", 100.0), row("peer", 200.0))
    assert worse(row("recsparse", 100.0), row("recsparse", 200.0))
    assert worse(row("recsparse[variant]", 100.0), row("recsparse[variant]", 200.0))
    assert worse(row("recsparse", 100.0), row("recsparse", None))


def test_compare_matches_cases_by_the_fields_that_both_runs_know() -> None:
    newer = row("recsparse", 50.0) | {"case": {"batch": 16, "dtype": "float32"}}
    assert "2.00x" in compare.compare([row("recsparse", 100.0)], [newer]).text


def test_merged_runs_count_what_changes_between_them_as_noise() -> None:
    first, second = [row("recsparse", 100.0), row("a", 1.0)], [row("recsparse", 140.0), row("b", 1.0)]
    (merged,) = compare.merge([first, second])
    assert (merged["p20_us"], merged["p50_us"], merged["p80_us"]) == (90.0, 120.0, pytest.approx(154.0))
    assert compare.verdict(merged, row("recsparse", 150.0)) == "within noise"
    wrong = compare.merge([[row("recsparse", 100.0)], [row("recsparse", None)]])
    assert [each["correct"] for each in wrong] == [False]


def test_compare_says_when_the_machines_differ() -> None:
    before, after = [row("a", 1.0, machine={"cpu": "x"})], [row("a", 1.0, machine={"cpu": "y"})]
    assert "different machines" in compare.compare(before, after).text
    assert "different machines" not in compare.compare(before, before).text


def test_compare_needs_something_in_common() -> None:
    with pytest.raises(UserError, match="no timed case"):
        compare.compare([row("a", 1.0)], [row("a", 1.0, batch=17)])


def test_files_round_trip_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    given = [row("recsparse", 20.0), row("wrong", None)]
    path = tmp_path / "rows.json"
    rows.write(given, path)
    assert rows.read(path) == given
    assert [file.name for file in tmp_path.iterdir()] == ["rows.json"]

    for text, message in (("[1", "not JSON"), ("{}", "not a list"), (json.dumps([{"op": "x"}]), "not a list")):
        path.write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            rows.read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        rows.read(tmp_path / "absent.json")


def ceiling(name: str, gbps: float, level: str = "memory") -> dict[str, Any]:
    case = {"bytes": 1 << 30, "level": level}
    return row(name, 10.0, op="ceiling") | {"case": case, "shown": f"{level}, arrays", "gbps": gbps, "units_per_s": 1.0}


def test_ceilings_head_the_report_and_cached_rows_say_so() -> None:
    given = [
        row("recsparse", 20.0, pct_ceiling=174.0, resident="cache"),
        row("peer", 30.0, pct_ceiling=50.0, resident="memory"),
        row("skewed", 40.0, pct_ceiling=90.0, resident="mixed"),
        ceiling("gather 64 B", 6.4),
    ]
    lines = report.table(given).splitlines()
    assert lines[0].startswith("ceiling")
    assert lines[2].split() == ["gather", "64", "B", "6.4", "100"]
    shares = {
        line.split()[0]: line.split()[7] for line in lines if line.split()[:1] in (["recsparse"], ["peer"], ["skewed"])
    }
    assert shares["peer"] == "50"
    assert any("174c" in line for line in lines)
    assert any("90m" in line for line in lines)
    assert any(line.startswith("  c: ") and "cache" in line for line in lines)


def test_markdown_has_one_table_a_case() -> None:
    text = report.table([row("a|b", 20.0), row("c", 30.0), row("a", 1.0, batch=17)], markdown=True)
    assert text.count("### lookup") == 2
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == 2 + 2 + 2 + 1
    assert len({line.replace("\\|", "").count("|") for line in tables}) == 1
    assert "a\\|b" in text


def timed(provider: str, p50: float, density: float, **more: Any) -> dict[str, Any]:
    case = {"rows": 10, "dim": 64, "batch": 16, "density": density, "kind": "bits"}
    return row(provider, p50, bytes_model=1000) | {"case": case} | more


def test_plots_are_those_that_the_rows_allow(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from recsparse.bench import plots

    def names(given: list[dict[str, Any]], folder: str) -> list[str]:
        written = plots.write(given, tmp_path / folder)
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
        return [path.name for path in written]

    assert names([row("recsparse", 20.0), row("peer", 40.0), row("wrong", None)], "bars") == ["speed.png"]
    one = [timed("recsparse", 20.0, 0.1), timed("peer", 40.0, 0.1), ceiling("copy", 20.0), ceiling("gather 64 B", 5.0)]
    assert names(one, "one") == ["roofline.png", "speed.png"]
    several = [*one, timed("recsparse", 30.0, 0.2), timed("peer", 40.0, 0.2)]
    assert names(several, "several") == ["roofline.png", "speed.png", "density.png"]
    with pytest.raises(UserError, match="nothing to plot"):
        plots.write([row("wrong", None), ceiling("copy", 20.0)], tmp_path)
