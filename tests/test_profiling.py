"""`recsparse profile`: stages, ops and bytes of a short run, and the files it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_runs
import torch

from recsparse import cli, ops
from recsparse.bench import inputs
from recsparse.bench.ceilings import Ceilings
from recsparse.bench.op_log import OpLog
from recsparse.bench.registry import Case
from recsparse.errors import UserError
from recsparse.optim import Adam
from recsparse.profiling import main
from recsparse.table import PackedTable

TINY = ["--train.batch_size=64", "--model.dim=16", "--train.epochs=50", "--run.folder=runs", "--run.name=p"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small ceilings, a data folder, and the working directory of the test."""
    rows = Ceilings.rows
    monkeypatch.setattr(Ceilings, "rows", lambda self, quick=False: rows(self, quick=True))
    small_runs.write_folder(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_dsl_with_mask_updates(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--policy.density=0.25", "--policy.dsl.mode=fresh", "--policy.dsl.every=10 steps"]
    assert cli.main(["profile", "--data.path=data", *flags, *TINY, "--steps", "30"]) == 0
    shown = capsys.readouterr().out
    result = json.loads((here / "runs/p/profile.json").read_text())
    stages = {each["stage"]: each for each in result["stages"]}
    assert stages.keys() >= {"sample", "step", "eval", "prune", "grow_scores", "prune_regrow", "rest"}
    assert stages["prune"]["calls"] == stages["grow_scores"]["calls"] >= 2
    inner = stages["grow_scores"]["seconds"] + stages["prune_regrow"]["seconds"]
    assert inner <= stages["prune"]["seconds"]
    outer = [each for each in result["stages"] if each["within"] is None]
    assert sum(each["seconds"] for each in outer) == pytest.approx(result["seconds"], rel=0.05)
    assert 30 <= result["steps"] <= 30 + 64

    found = {each["op"]: each for each in result["ops"]}
    assert found.keys() >= {"bpr_step_", "bpr_grow_scores", "prune_regrow_", "sample", "rank_packed"}
    for each in found.values():
        assert each["seconds"] > 0
        assert each["us_per_call"] == pytest.approx(each["seconds"] / each["calls"] * 1e6)
    assert found["bpr_step_"]["bytes_model"] > 0
    assert found["bpr_step_"]["pct_ceiling"] > 0
    assert found["sample"]["bytes_model"] is None
    assert all(word in shown for word in ("ceiling", "bpr_step_", "prune_regrow_"))
    assert "no mask update" not in shown

    names = {event.get("name") for event in json.loads((here / "runs/p/trace.json").read_text())["traceEvents"]}
    assert names >= {"recsparse/step", "recsparse/sample", "recsparse/eval", "recsparse/prune", "recsparse::bpr_step_"}


def test_dense_has_no_mask_update(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data.path=data", "--policy.name=dense", *TINY, "--steps=5"]) == 0
    assert "no mask update came due" in capsys.readouterr().out
    stages = {each["stage"] for each in json.loads((here / "runs/p/profile.json").read_text())["stages"]}
    assert stages == {"sample", "step", "eval", "rest"}


def test_a_run_that_is_shorter_than_asked_is_profiled_whole(here: Path) -> None:
    flags = ["--policy.name=dense", "--train.batch_size=64", "--model.dim=16", "--train.epochs=1", "--run.name=p"]
    assert main(["--data.path=data", *flags, "--steps=1M"]) == 0
    result = json.loads((here / "runs/p/profile.json").read_text())
    assert result["samples"] < 64 * 1000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps"),
        (["--steps", "many"], "--steps"),
        (["--steps"], "--steps needs a value"),
        (["--step", "3"], "unknown option --step"),
        (["--data.path", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_give_one_clear_line(flags: list[str], message: str, here: Path) -> None:
    with pytest.raises(UserError) as caught:
        main(["--data.path=data", "--policy.name=dense", *flags])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (here / "runs").exists()


def test_op_log_counts_calls_and_bytes() -> None:
    dense = inputs.masked_dense(Case(rows=500, dim=32, density=0.2))
    table = PackedTable.from_dense(dense, kind="bits")
    ids = torch.arange(100)
    optimizer = Adam(table)
    with OpLog() as log, torch.no_grad():
        expected = table.lookup(ids)
        for _ in range(3):
            assert torch.equal(ops.lookup(table, ids), expected)
        torch.ones(3).sum()
        ops.bpr_step_(table, optimizer, ids[:10], ids[:10], ids[10:20], item_offset=250, batch_size=5)
    rows = {each["op"]: each for each in log.rows(Ceilings())}
    assert rows.keys() == {"lookup", "bpr_step_"}
    assert rows["lookup"]["calls"] == 4
    one = inputs.packed_gather(100, table).gather + 100 * (8 + 32 * 4)
    assert rows["lookup"]["bytes_model"] == 4 * one
    assert rows["bpr_step_"]["bytes_model"] == inputs.packed_gather(30, table, arrays=3, passes=2).gather
