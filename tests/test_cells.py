"""Runs in processes of their own: what stops, fails or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_runs

from recsparse.cells import Cell, command, names, settle
from recsparse.errors import Diverged, UserError
from recsparse.runs import RunFolder

ROOT = Path(__file__).resolve().parent.parent


def flags(folder: Path, *extra: str) -> tuple[RunFolder, list[str]]:
    data = small_runs.write_folder(folder / "tiny")
    cell = Cell("mf", "dense", "", 0)
    shared = ["--train.epochs=2", "--train.batch_size=64", "--model.dim=16", "--optim.lr=0.02", "--train.eval_every=1"]
    return RunFolder(folder / cell.name), command(cell, str(data), folder, [*shared, *extra])


def test_names_count_once() -> None:
    assert names(" a, b,a,,") == ["a", "b"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_run_which_then_goes_on(tmp_path: Path, number: signal.Signals, status: int) -> None:
    data = small_runs.write_folder(tmp_path / "tiny")
    argv = [sys.executable, "-m", "recsparse", "compare", f"--data={data}", "--policy=dense", f"--folder={tmp_path}"]
    argv += ["--train.batch_size=4", "--model.dim=16", "--train.eval_every=1", "--train.patience=0"]
    process = subprocess.Popen(
        [*argv, "--train.epochs=100000"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    run = RunFolder(tmp_path / "mf-dense-s0")
    while len(run.rows()) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, message = process.communicate()
    assert process.returncode == status
    assert "the same command goes on from here" in message
    saved = len(run.rows())
    time.sleep(0.5)
    assert len(run.rows()) == saved  # the training has ended too
    assert run.checkpoint("last").is_dir()


def test_what_was_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    run, arguments = flags(tmp_path)
    run.path.mkdir()
    run.config_file.write_text("data: {pa")
    assert settle(run, arguments) == "trained"
    assert settle(run, arguments) == "was there"


def test_another_run_is_left_alone(tmp_path: Path) -> None:
    run, arguments = flags(tmp_path)
    run.path.mkdir()
    (run.path / "thesis.tex").touch()
    with pytest.raises(UserError, match="is no run"):
        settle(run, arguments)
    assert (run.path / "thesis.tex").exists()


def test_a_run_that_diverges_is_told_from_one_that_is_refused(tmp_path: Path) -> None:
    run, arguments = flags(tmp_path, "--optim.name=sgd", "--optim.lr=10", "--optim.l2=900")
    with pytest.raises(Diverged, match=r"mf-dense-s0: .*lower optim\.lr"):
        settle(run, arguments)
    with pytest.raises(UserError, match=r"model\.dim is 1000") as error:
        settle(run, [*arguments, "--model.dim=1000"])
    assert not isinstance(error.value, Diverged)
