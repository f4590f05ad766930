from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from recsparse.bench import axes
from recsparse.bench.cli import main
from recsparse.bench.registry import OURS, get_op, providers_of
from recsparse.errors import BackendError, UserError

FIELDS = {
    *("op", "case", "provider", "backend", "threads", "p20_us", "p50_us", "p80_us", "first_us", "gbps"),
    *("bytes_model", "ceiling_gbps", "pct_ceiling", "resident", "peak_bytes", "correct", "machine", "versions", "git"),
}
TINY = ["--op", "lookup", "--quick", "--threads", "1", "--budget", "0.05"]


def test_run_report_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    flags = ["--provider", "recsparse,torch.index_select", "--rows", "1e3", "--dim", "32", "--density", "0.25"]
    flags += ["--batch", "100", "--ids", "zipf:1.05", "--kind", "cols8", "--warm", "--json", str(path)]
    assert main(["run", *TINY, *flags]) == 0
    shown = capsys.readouterr().out
    assert "recsparse against the best peer (torch.index_select)" in shown

    ceilings = [row for row in json.loads(path.read_text()) if row["op"] == "ceiling"]
    assert [row["provider"] for row in ceilings] == ["copy", "read", "gather 64 B", "gather 128 B", "gather 256 B"]
    assert all(row.keys() >= FIELDS and row["gbps"] > 0 and row["threads"] == 1 for row in ceilings)
    rows = json.loads(path.read_text())[len(ceilings) :]
    assert [row["provider"] for row in rows] == ["recsparse", "torch.index_select"]
    for row in rows:
        assert row.keys() >= FIELDS
        assert row["case"] == {
            **{"rows": 1000, "dim": 32, "density": 0.25, "batch": 100, "bag": 1, "ids": "zipf:1.05"},
            **{"dtype": "float32", "cold": False, "kind": "cols8", "optimizer": "adam", "graph": ""},
            "device": "cpu",
        }
        assert row["correct"] is True
        assert row["resident"] == "cache"
        assert row["gbps"] == pytest.approx(row["bytes_model"] / row["p50_us"] / 1e3)
        assert row["pct_ceiling"] == pytest.approx(100 * row["gbps"] / row["ceiling_gbps"], rel=1e-2)
    dense = rows[1]["bytes_model"]
    assert dense == 100 * (32 * 4 + 32 * 4 + 8)
    assert rows[0]["bytes_model"] != dense

    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out.startswith(shown.rstrip("\n"))
    assert {file.name for file in (tmp_path / "rows").iterdir()} == {"roofline.png", "speed.png"}
    assert main(["report", str(path), "--markdown", "--plots", str(tmp_path / "more")]) == 0
    assert "| recsparse |" in capsys.readouterr().out
    assert main(["compare", str(path), str(path)]) == 0
    assert capsys.readouterr().out.count("within noise") == len(rows) + len(ceilings)

    slower = [row | {name: 2 * row[name] for name in ("p20_us", "p50_us", "p80_us") if row[name]} for row in rows]
    path.with_name("slower.json").write_text(json.dumps(slower))
    assert main(["compare", str(path), str(tmp_path / "slower.json")]) == 1
    assert main(["compare", str(tmp_path / "slower.json"), str(path)]) == 0


def test_lists_give_all_combinations(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    flags = ["--provider", "recsparse", "--rows", "1k,2k", "--density", "0.1,0.25", "--threads", "1,2"]
    assert main(["run", *TINY[:3], "--budget", "0.01", *flags, "--json", str(path)]) == 0
    rows = [row for row in json.loads(path.read_text()) if row["op"] == "lookup"]
    found = [(row["threads"], row["case"]["rows"], row["case"]["density"]) for row in rows]
    assert found == [(t, n, x) for t in (1, 2) for n in (1000, 2000) for x in (0.1, 0.25)]


def test_cases_of_full_tables_follow_the_density() -> None:
    op = get_op("bpr_step")
    kinds = {(case.density, case.kind) for case in axes.cases(op, True, {"density": [0.2, 1.0]})}
    assert kinds == {(0.2, "bits"), (1.0, "bits"), (1.0, "full")}
    assert {case.kind for case in axes.cases(op, True, {"density": [0.2]})} == {"bits"}
    assert {case.kind for case in axes.cases(op, True, {"rows": [500]})} == {"bits", "full"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="what is said where there is no GPU")
def test_without_a_gpu_the_reason_is_said() -> None:
    with pytest.raises(BackendError, match="backend cuda: torch"):
        main(["run", *TINY, "--device", "cuda"])


def test_on_a_gpu_ours_of_both_backends_meets_the_peers_that_run_there() -> None:
    names = [each.name for each in providers_of("lookup", device="cuda")]
    assert names[:2] == [OURS, f"{OURS}[triton]"]
    assert {"torch.index_select", "weight x mask[torch.compile]"} <= set(names)
    assert not {"numba.csr", "scipy.csr"} & set(names)
    op = get_op("lookup")
    (case,) = axes.cases(op, False, {"density": [0.2]}, "cuda")
    assert case.device == "cuda"
    assert case.rows > max(each.rows for each in axes.cases(op, False, {}))


def test_the_time_that_a_run_takes_is_said_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *TINY, "--provider", "recsparse"]) == 0
    assert capsys.readouterr().err.splitlines()[0].startswith("1 cases, at most about")


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
        (["run", *TINY, "--device", "tpu"], "--device"),
        (["run", "--op", "sample", "--quick", "--density", "0.1"], "--density: sample has no such axis; it has --rows"),
        (["run", "--op", "lookup,sample", "--quick", "--dim", "8"], "--dim: sample has no such axis; --op lookup"),
        (["run", "--op", "sample", "--quick", "--warm"], "--warm"),
        (["run", *TINY, "--rows", "1e3,x"], "--rows"),
        (["run", *TINY, "--threads", "1,0"], "--threads"),
        (["compare", "a.json"], "two files"),
        (["compare", "a.json", "b.json", "--rows", "10"], "--base"),
        (["compare", "a.json", "b.json", "--quick"], "--base"),
        (["compare", "a.json", "b.json", "--base", "HEAD"], "not both"),
        (["compare", "--base", "HEAD", "--op", "nothing"], "unknown op"),
        (["compare", "--base", "no-such-commit"], "--base"),
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
