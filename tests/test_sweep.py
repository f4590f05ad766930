"""`recsparse sweep`: the same trials for every policy, and the same ones again after a stop."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import small_runs

from recsparse import cells, report
from recsparse.cli import main
from recsparse.runs import RunFolder

pytest.importorskip("optuna", reason="no sweep without optuna")

ROOT = Path(__file__).resolve().parent.parent
SHORT = ["--train.epochs=2", "--model.dim=16", "--train.eval_every=1"]
SPACE = "optim.lr: {low: 1e-3, high: 1e-1, log: true}\ntrain.batch_size: {choices: [64, 128]}\n"

Train = Callable[[Sequence[str]], tuple[int, str]]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were trained, which are trained in this process: a new one takes two seconds to start."""
    found: list[str] = []

    def train(arguments: Sequence[str]) -> tuple[int, str]:
        named = [word for word in arguments if word.startswith(("--run.name=", "--resume="))]
        found.append(Path(named[0].partition("=")[2]).name)
        with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.redirect_stdout(io.StringIO()):
            status = main(["train", *arguments])
        return status, stderr.getvalue()

    monkeypatch.setattr(report, "plot", lambda *arguments: False)
    monkeypatch.setattr(cells, "_train", train)
    return found


def command(folder: Path, *extra: str, space: str = SPACE, name: str = "sweep") -> list[str]:
    data = small_runs.write_folder(folder / "tiny")
    (folder / "space.yaml").write_text(space)
    flags = [
        "sweep",
        f"--data={data}",
        f"--space={folder / 'space.yaml'}",
        "--policy=dense,random_mask",
        "--budget=50%",
    ]
    return [*flags, "--trials=3", f"--folder={folder / name}", *SHORT, *extra]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def facts(folder: Path) -> list[tuple[Any, ...]]:
    return [(row["policy"], row["trial"], row["state"], row["values"], row["recall@20"]) for row in rows(folder)]


def test_every_policy_has_the_same_number_of_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[str]
) -> None:
    assert main(command(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "6/6 mf-random_mask-50pct-s0-t002: trained, valid recall@20" in shown
    folder = tmp_path / "sweep"
    found = rows(folder)
    assert [(row["policy"], row["trial"]) for row in found] == [
        (policy, number) for policy in ("dense", "random_mask") for number in range(3)
    ]
    assert len({row["values"]["optim.lr"] for row in found[:3]}) == 3
    for row in found:
        assert 1e-3 <= row["values"]["optim.lr"] <= 1e-1
        assert row["values"]["train.batch_size"] in (64, 128)
        assert not [key for key in row if "test" in key]
        run = RunFolder(Path(row["run"]))
        final = run.rows()[-1]
        assert final["config"]["optim"]["lr"] == row["values"]["optim.lr"]
        assert final["best_valid_recall@20"] == row["recall@20"]
    assert found[3]["table_bytes"] <= 0.5 * found[0]["table_bytes"]

    report = (folder / "report.md").read_text()
    for policy, mine in (("dense", found[:3]), ("random_mask", found[3:])):
        best = max(mine, key=lambda row: row["recall@20"])
        final = RunFolder(Path(best["run"])).rows()[-1]
        wall = sum(row["wall_seconds"] for row in mine)
        line = next(line for line in report.splitlines() if line.startswith(f"| {policy} |"))
        assert f"| {best['trial']} | {best['recall@20']:.4f} | {final['test_recall@20']:.4f} |" in line
        assert line.endswith(f"| 3 | 0 | {wall:.0f} |")
        kept = {row["trial"] for row in mine if (Path(row["run"]) / "checkpoint").exists()}
        assert kept == {best["trial"]}
        # What was found trains to the same figures.
        again = [
            "train",
            f"--config={folder / f'best-{policy}.yaml'}",
            f"--run.folder={tmp_path}",
            f"--run.name={policy}",
        ]
        assert main(again) == 0
        assert RunFolder(tmp_path / policy).rows()[-1]["test_recall@20"] == final["test_recall@20"]
    assert "held-out validation" in report

    count, before = len(trained), facts(folder)
    assert main(command(tmp_path)) == 0
    assert (len(trained), facts(folder)) == (count, before)
    assert main(command(tmp_path, "--trials=4")) == 0
    assert len(trained) == count + 2
    assert len(rows(folder)) == 8
    assert main(command(tmp_path, "--trials=2")) == 2
    assert "give at least 4" in capsys.readouterr().err


def test_a_stopped_sweep_goes_on_with_the_same_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    train: Train = cells._train
    assert main(command(tmp_path, "--seed=3", "--trials=2", name="whole")) == 0
    before = list(trained)

    calls = 0

    def stopped(arguments: Sequence[str]) -> tuple[int, str]:
        nonlocal calls
        calls += 1
        if calls in (1, 3, 4):
            raise cells.Stopped(signal.SIGTERM)
        return train(arguments)

    monkeypatch.setattr(cells, "_train", stopped)
    argv = command(tmp_path, "--seed=3", "--trials=2", name="stopped")
    assert [main(argv) for _ in range(4)] == [143, 143, 143, 0]
    assert trained == before * 2
    assert facts(tmp_path / "stopped") == facts(tmp_path / "whole")


def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "recsparse", *command(tmp_path, "--trials=2", "--policy=dense")]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
    second = RunFolder(tmp_path / "sweep" / "mf-dense-s0-t001")
    while not second.path.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(0.3)
    assert "final" not in {row["event"] for row in second.rows()}  # the training was killed with it
    assert main(argv[3:]) == 0
    assert [(row["trial"], row["state"]) for row in rows(tmp_path / "sweep")] == [(0, "complete"), (1, "complete")]


def test_a_trial_that_diverges_counts_as_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[str]
) -> None:
    space = "optim.lr: {choices: [1e-4, 10.0]}\n"
    flags = ["--optim.name=sgd", "--optim.l2=900", "--policy=dense", "--trials=6", "--train.batch_size=64"]
    assert main(command(tmp_path, *flags, space=space)) == 0
    found = rows(tmp_path / "sweep")
    assert len(found) == 6
    assert {(row["values"]["optim.lr"], row["state"]) for row in found} == {(1e-4, "complete"), (10.0, "failed")}
    reasons = [row["reason"] for row in found if row["state"] == "failed"]
    assert all("lower optim.lr" in reason for reason in reasons)
    failed = len(reasons)
    assert f"| 6 | {failed} |" in (tmp_path / "sweep" / "report.md").read_text()
    capsys.readouterr()
    flags.remove("--train.batch_size=64")
    assert main(command(tmp_path, *flags, "--optim.lr=10", space=SPACE.splitlines()[1], name="bad")) == 2
    assert "dense: none of 6 trials finished; the first: mf-dense-s0-t000: the loss is" in capsys.readouterr().err


def test_an_impossible_table_counts_as_failed(tmp_path: Path, trained: list[str]) -> None:
    space = "model.dim: {choices: [8, 32]}\n"
    flags = ["--policy=small_dense", "--budget=7000B", "--trials=6", "--train.batch_size=64"]
    argv = [word for word in command(tmp_path, *flags, space=space) if not word.startswith("--model.dim")]
    assert main(argv) == 0
    assert {(row["values"]["model.dim"], row["state"]) for row in rows(tmp_path / "sweep")} == {
        (8, "failed"),  # above the dense table of 6400 bytes
        (32, "complete"),
    }


def test_protocol_paper_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[str]) -> None:
    assert main(command(tmp_path, "--policy=dense", "--trials=1", "--data.protocol=paper")) == 0
    assert capsys.readouterr().out.count("TEST-SELECTED") == 2
    assert "TEST-SELECTED" in (tmp_path / "sweep" / "report.md").read_text()
    assert rows(tmp_path / "sweep")[0]["stamp"] == "TEST-SELECTED"


def test_another_sweep_in_the_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[str]
) -> None:
    first = [*command(tmp_path, "--policy=dense", "--trials=1")]
    assert main(first) == 0
    capsys.readouterr()
    assert main([*first, "--optim.l2=0.5"]) == 2
    assert "holds a sweep with optim.l2 0.001, not 0.5; give another --folder" in capsys.readouterr().err
    other = command(tmp_path, "--policy=dense", "--trials=1", space=SPACE.replace("1e-1", "1e-2"))
    assert main(other) == 2
    assert "holds a sweep with space of optim.lr" in capsys.readouterr().err
    (tmp_path / "sweep" / "studies.db").write_text("not a database")
    assert main(first) == 2
    error = capsys.readouterr().err
    assert "studies.db" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--trials=0"], "--trials is 0"),
        (["--seed=-1"], "--seed is -1"),
        (["--policy=magic"], "policy.name is 'magic'"),
        (["--budget=much"], "policy.budget is 'much'"),
        (["--colour", "red"], "--colour: not a flag of sweep"),
        (["--colour=red"], "unknown option --colour"),
        (["--optim.lr=0.1"], "searches optim.lr; leave out one of the two"),
        (["--policy.name=lth"], "the sweep sets policy.name itself"),
        (["--data.path=x"], "the sweep sets data.path itself"),
        (["--data=nowhere"], "nowhere"),
    ],
)
def test_mistakes_exit_with_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[str], extra: list[str], message: str
) -> None:
    assert main(command(tmp_path, *extra)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert trained == []


def test_without_optuna_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(command(tmp_path)) == 2
    assert "pip install 'recsparse[sweep]'" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()
