"""Mistakes and refusals of the system that must be one line on stderr, and leave nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_runs
import torch

from recsparse import checkpoint, cli
from recsparse.config import MAX_THREADS
from recsparse.errors import UserError
from recsparse.runs import RunFolder

ROOT = Path(__file__).resolve().parent.parent


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that `argv` ends with, exit status 2."""
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("recsparse: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["demo", "--preset", "nope"], "--preset is 'nope'"),
        (["demo", "--epochs", "0"], "--epochs is 0"),
        (["demo", "--folder", "file"], "file is a file"),
        (["bench", "scale", "--rows", "inf"], "whole number from 1 to 2^40"),
        (["bench", "scale", "--rows", "nan"], "whole number from 1 to 2^40"),
        (["bench", "scale", "--rows", "1e14"], "whole number from 1 to 2^40"),
        (["bench", "scale", "--threads", "-1"], "--threads is -1"),
        (["bench", "scale", "--threads", str(MAX_THREADS + 1)], f"from 0 to {MAX_THREADS}"),
        (["bench", "scale", "--json", "."], "is a folder"),
        (["train", "--policy.density", "nan"], "\"policy.density\": Expected a 'float'. Got value: nan"),
        (["train", "--policy.dsl.mode", "slow"], "Expected one of ['faithful', 'fresh', 'rotate']. Got value: slow"),
        (["train", "--data.path", "data", "--policy.density", "0.001"], "the least is 0.015625"),
        (
            ["train", "--data.path", "data", "--policy.name", "dense", "--policy.budget", "10%"],
            "policy.budget is 10%, but policy dense takes no size",
        ),
    ],
)
def test_bad_values_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    small_runs.write_folder(tmp_path / "data")
    assert part in refused(capsys, *argv)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "data"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("argv", [["train", "--data.path", "data"], ["bench", "scale", "--rows", "1e4"]])
def test_a_gpu_that_is_not_there_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small_runs.write_folder(tmp_path / "data")
    assert "backend cuda: torch " in refused(capsys, *argv, "--device", "cuda")
    assert "backend cuda: torch " in refused(capsys, *argv, "--device=cuda")
    assert not (tmp_path / "runs").exists()


def test_bench_run_looks_at_its_flags_before_it_runs(tmp_path: Path) -> None:
    bench = pytest.importorskip("recsparse.bench.cli", reason="needs the installed package")
    with pytest.raises(UserError, match="is a folder"):
        bench.main(["run", "--quick", "--json", str(tmp_path)])
    with pytest.raises(UserError, match=f"at most {MAX_THREADS}"):
        bench.main(["run", "--quick", "--threads", str(MAX_THREADS + 1)])


def test_a_key_without_value_names_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("policy: {density: }\nmodel:\n  dim:\n")
    assert "empty.yaml:3: key model.dim has no value" in refused(capsys, "train", "--config", str(file))


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(28, "No space left on device", "plot.png"), "plot.png: No space left on device"),
        (MemoryError(), "not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            "not enough memory",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, part: str
) -> None:
    def fail(argv: list[str]) -> int:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", fail))
    assert part in refused(capsys, "doctor")
    with pytest.raises(type(error)):
        cli.main(["doctor", "--debug"])


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str]) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", fail))
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["doctor"])


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", interrupted))
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "recsparse: error: interrupted\n"


def test_an_unknown_instruction_set_is_refused_before_a_run_folder_exists(tmp_path: Path) -> None:
    small_runs.write_folder(tmp_path / "data")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RECSPARSE_CPU_ISA": "sse9"}
    argv = [sys.executable, "-m", "recsparse", "train", "--data.path=data", "--policy.name=dense"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "recsparse: error: RECSPARSE_CPU_ISA=sse9: expected avx512, avx2 or portable\n"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("text", ["[1]", '{"format": 1}', '{"format": 1, "sha256": 3, "state": {}}', "{"])
def test_a_sealed_state_without_its_keys_is_damaged(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "last"
    checkpoint.save(folder, {"table": {"values": torch.ones(3)}}, {})
    (folder / "state.json").write_text(text)
    (folder / "COMPLETE").write_text(hashlib.sha256(text.encode()).hexdigest())
    with pytest.raises(UserError, match=r"state\.json is damaged"):
        checkpoint.load(folder)


def test_foreign_lines_in_metrics_are_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    row = {"event": "epoch", "stage": 0, "epoch": 1}
    run.metrics_file.write_text(json.dumps(row) + '\n[1]\n{"event": "final"}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: "):
        run.rows()
