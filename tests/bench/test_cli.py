from __future__ import annotations

import json
from pathlib import Path

import pytest

from recsparse.bench.cli import main
from recsparse.errors import UserError

FIELDS = {
    *("op", "case", "provider", "backend", "threads", "p20_us", "p50_us", "p80_us", "bytes_model", "gbps"),
    *("ceiling_gbps", "pct_ceiling", "peak_bytes", "correct", "machine", "versions", "git"),
}
TINY = ["--op", "lookup", "--quick", "--threads", "1", "--budget", "0.05"]


def test_run_report_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    flags = ["--provider", "recsparse,torch.index_select", "--rows", "1e3", "--dim", "32", "--density", "0.25"]
    flags += ["--batch", "100", "--ids", "zipf:1.05", "--kind", "cols8", "--warm", "--json", str(path)]
    assert main(["run", *TINY, *flags]) == 0
    shown = capsys.readouterr().out
    assert "recsparse against the best peer (torch.index_select)" in shown

    rows = json.loads(path.read_text())
    assert [row["provider"] for row in rows] == ["recsparse", "torch.index_select"]
    for row in rows:
        assert row.keys() >= FIELDS
        assert row["case"] == {
            **{"rows": 1000, "dim": 32, "density": 0.25, "batch": 100, "ids": "zipf:1.05"},
            **{"dtype": "float32", "cold": False, "kind": "cols8"},
        }
        assert row["correct"] is True
        assert row["gbps"] == pytest.approx(row["bytes_model"] / row["p50_us"] / 1e3)
        assert row["pct_ceiling"] == pytest.approx(100 * row["gbps"] / row["ceiling_gbps"], rel=1e-2)
    dense = rows[1]["bytes_model"]
    assert dense == 100 * (32 * 4 + 32 * 4 + 8)
    assert rows[0]["bytes_model"] != dense

    assert main(["report", str(path), "--plot", str(tmp_path / "plot.png")]) == 0
    assert capsys.readouterr().out.startswith(shown.rstrip("\n"))
    assert main(["compare", str(path), str(path)]) == 0
    assert capsys.readouterr().out.count("within noise") == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["run", "--op", "gather"], "unknown op 'gather'"),
        (["run", *TINY, "--provider", "cublas"], "unknown provider 'cublas'"),
        (["run", *TINY, "--provider", "numpy.partition"], "none of numpy.partition computes lookup"),
        (["run", *TINY, "--rows", "0"], "--rows"),
        (["run", *TINY, "--rows", "1.5"], "--rows"),
        (["run", *TINY, "--dim", "257"], "256"),
        (["run", *TINY, "--density", "1.1"], "--density"),
        (["run", *TINY, "--density", "nan"], "--density"),
        (["run", *TINY, "--ids", "zipf:-1"], "--ids"),
        (["run", *TINY, "--dtype", "int3"], "--dtype"),
        (["run", *TINY, "--kind", "full"], "--density"),
        (["run", *TINY, "--threads", "none"], "--threads"),
        (["run", *TINY, "--cold", "--warm"], "--warm"),
        (["run", *TINY, "--json", "/no/such/folder/x.json"], "/no/such/folder"),
        (["run", *TINY, "--colour", "red"], "--colour"),
        (["walk"], "walk"),
        ([], "required"),
        (["report", "/no/such/file.json"], "/no/such/file.json"),
    ],
)
def test_mistakes_give_one_clear_line(flags: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        main(flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
