from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_runs

from recsparse import compare, comparison
from recsparse.cells import Cell, plan
from recsparse.cli import main
from recsparse.errors import UserError

SHORT = ["--train.epochs=2", "--train.batch_size=64", "--model.dim=16", "--optim.lr=0.02", "--train.eval_every=1"]


def test_runs_once_then_reads_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = small_runs.write_folder(tmp_path / "tiny"), tmp_path / "all"
    flags = ["compare", "--data", str(data), "--folder", str(folder), "--budget", "50%", *SHORT]
    flags += ["--policy.dsl.mode=fresh", "--policy.lth.rate=0.5"]
    assert main([*flags, "--policy", "dense,small_dense,lth"]) == 0
    shown = capsys.readouterr().out
    assert shown.count(": trained") == 3
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [row["policy"] for row in rows] == ["dense", "small_dense", "lth"]
    for row in rows[1:]:
        assert row["share"] <= 0.5
        assert 0 < row["recall"] <= 1
        assert len(row["buckets"]) == 4
    dense, _, lth = rows
    assert lth["state_bytes"] >= dense["state_bytes"]  # it starts with the full table
    assert lth["wall_seconds"] > 0
    report = (folder / "report.md").read_text()
    assert "against small dense" in report
    assert "Recall@20 by popularity" in report
    assert (folder / "quality.png").stat().st_size > 1000

    # Another policy joins; what is there is read. A run that was killed goes on.
    killed = folder / "mf-small_dense-50pct-s0" / "metrics.jsonl"
    killed.write_text("".join(line + "\n" for line in killed.read_text().splitlines()[:-1]))
    assert main([*flags, "--policy", "dense,small_dense,dsl", "--train.epochs=2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count(": was there") == 1
    assert shown.count(": trained") == 1
    assert shown.count(": resumed") == 1
    again = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert sorted(row["policy"] for row in again) == ["dense", "dsl", "lth", "small_dense"]
    assert [row["recall"] for row in again if row["policy"] == "small_dense"] == [rows[1]["recall"]]

    assert main([*flags, "--policy", "dense", "--optim.lr=0.5"]) == 2
    assert "was run with optim.lr 0.02, not 0.5" in capsys.readouterr().err
    assert main([*flags, "--policy", "small_dense", "--budget", "1%"]) == 2
    message = capsys.readouterr().err.strip()
    assert "affords less than one column" in message
    assert len(message.splitlines()) == 1


def test_rivals_have_one_value_type_and_quantised_tables_one_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = small_runs.write_folder(tmp_path / "tiny"), tmp_path / "all"
    flags = ["compare", "--data", str(data), "--folder", str(folder), "--budget", "30%", *SHORT]
    flags += ["--model.dtype=float16", "--policy", "small_dense,random_mask,dense_int8"]
    assert main(flags) == 0
    rows = {row["policy"]: row for row in map(json.loads, (folder / "results.jsonl").read_text().splitlines())}
    granted = 0.3 * 200 * 16 * 4
    # Halves: 9 of 16 columns, where fp32 would afford 4; random_mask fills the budget to the weight.
    assert rows["small_dense"]["table_bytes"] == 200 * 9 * 2 <= granted
    assert granted - 4 <= rows["random_mask"]["table_bytes"] <= granted
    assert rows["dense_int8"]["table_bytes"] == 200 * (16 + 4)
    assert rows["dense_int8"]["budget"] == ""
    assert rows["dense_int8"]["state_bytes"] == 200 * 16 * (2 + 8)
    report = (folder / "report.md").read_text()
    assert "| mf | dense_int8 | - |" in report


def test_the_plan() -> None:
    cells = plan(["mf", "lightgcn"], ["dense", "dsl"], ["20%", "10%"], range(2))
    assert {cell.budget for cell in plan(["mf"], ["dense_fp16", "dense_int8"], ["20%", "10%"], [0])} == {""}
    assert len(cells) == 2 * 2 * 3
    assert cells[:3] == [Cell("mf", "dense", "", 0), Cell("mf", "dsl", "20%", 0), Cell("mf", "dsl", "10%", 0)]
    assert len({cell.name for cell in cells}) == len(cells)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--data is missing"),
        (["--data", "demo", "--model", "bert"], "unknown model 'bert'"),
        (["--data", "demo", "--policy", "magic"], "magic"),
        (["--data", "demo", "--seeds", "0"], "--seeds is 0"),
        (["--data", "demo", "--colour", "red"], "--colour: not a flag of compare"),
        (["--preset", "slow"], "slow"),
    ],
)
def test_mistakes_are_named(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare.main(flags)


def test_seeds_are_averaged() -> None:
    rows = []
    for policy, recalls in (("small_dense", (0.1, 0.2)), ("dsl", (0.2, 0.4))):
        for seed, recall in enumerate(recalls):
            facts = {"recall": recall, "ndcg": recall / 2, "table_bytes": 1 << 20, "share": 0.1, "state_bytes": 3 << 20}
            facts |= {"peak_rss_bytes": 5 << 20, "wall_seconds": 2.0, "epochs": 7, "protocol": "paper"}
            names = {"data": "d", "data_hash": "h", "version": "v", "run": f"{policy}{seed}", "buckets": []}
            rows.append(comparison.Row("mf", policy, "10%", seed, **facts, **names))  # type: ignore[arg-type]
    groups = comparison.group(rows)
    lines = comparison.cells_of(groups)
    assert lines[0][3] == "0.1500 ± 0.0707"
    assert lines[1][3:6] == ["0.3000 ± 0.1414", "0.1500 ± 0.0707", "+100.0 %"]
    assert comparison.stamp(groups).startswith("TEST-SELECTED")
