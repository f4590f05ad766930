from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import small_runs

import recsparse
from recsparse import checkpoint, cli
from recsparse.runs import RunFolder

ROOT = Path(__file__).resolve().parent.parent
QUICK = ["--train.epochs=3", "--train.batch_size=64", "--train.eval_every=1", "--model.dim=16", "--optim.lr=0.02"]


def start(*argv: str, folder: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "recsparse", *argv],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(*argv: str, folder: Path) -> tuple[int, str, str]:
    process = start(*argv, folder=folder)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def within(*argv: str, folder: Path) -> tuple[int, str, str]:
    """As `command`, in this process: the same entry point without the seconds that a new interpreter takes."""
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(argv)
    finally:
        os.chdir(before)
    return code, out.getvalue(), err.getvalue()


def assert_refused(
    folder: Path, argv: list[str], *parts: str, run: Callable[..., tuple[int, str, str]] = within
) -> None:
    """Exit status 2, one line on stderr with all `parts`, nothing on stdout, and no file made."""
    before = listing(folder)
    code, out, err = run(*argv, folder=folder)
    assert (code, out, err.count("\n")) == (2, "", 1), (code, out, err)
    assert err.startswith("recsparse: error: ")
    for part in parts:
        assert part in err
    assert listing(folder) == before


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_runs.write_folder(tmp_path / "data")


def test_help_names_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"], ["-h"]):
        assert cli.main(argv) == 0
        text = capsys.readouterr().out
        assert all(f"  {name} " in text for name in cli.COMMANDS)
        assert "recsparse train --data.path DIR --policy.name dsl --policy.budget 20%" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"recsparse {recsparse.__version__}\n"


@pytest.mark.parametrize("name", ["demo", "train", "eval", "doctor", "data", "bench scale"])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*name.split(), "--help"])
    assert end.value.code == 0
    assert f"recsparse {name}" in capsys.readouterr().out


def test_help_of_train_describes_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "--policy.budget BUDGET",
        "share of dense fp32",
        "--train.patience",
        "recsparse train --resume runs/first",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["trian"], "unknown command 'trian'"),
        (["eval"], "--run"),
        (["eval", "--run", "nowhere"], "no run there"),
        (["train"], "data.path is empty"),
        (["train", "--data.path", "nowhere"], "nowhere: no such folder"),
        (
            ["train", "--data.path", "tiktok-scale", "--policy.budget", "20%", "--model.name", "lightgcn"],
            "is streamed; use mf",
        ),
        (["train", "--resume", "nowhere"], "nowhere: no run there"),
        (["train", "--policy.name", "dls"], "one of dense, small_dense, dsl"),
        (["bench", "scale", "--rows", "1.5"], "whole number"),
        (["bench", "scale", "--rows", "1e4", "--density", "0.001"], "less than one weight a row"),
        (["data", "stats", "nowhere"], "no such folder"),
    ],
)
def test_mistakes_exit_with_2_and_one_line(argv: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("recsparse: error: ")
    assert err.count("\n") == 1
    assert part in err


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(recsparse.UserError):
        cli.main(["train", "--debug"])


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("3 7 x9 4", ("train.txt", ":4")),
        ("3 -7", ("train.txt", ":4", "negative")),
        ("3 99999999999999999999", ("train.txt", ":4")),
        ("3 2000000000", ("train.txt", "huge item id 2000000000")),
        ("2000000000 3", ("train.txt", "huge user id 2000000000")),
    ],
)
def test_bad_lines_are_named_and_nothing_is_written(
    tmp_path: Path, data: Path, line: str, parts: tuple[str, ...]
) -> None:
    lines = (data / "train.txt").read_text().splitlines()
    (data / "train.txt").write_text("\n".join([*lines[:3], line, *lines[4:]]) + "\n")
    assert_refused(tmp_path, ["train", "--data.path", "data", "--policy.budget", "50%"], *parts)


@pytest.mark.parametrize("part", ["train", "test"])
def test_empty_and_missing_files_are_named(tmp_path: Path, data: Path, part: str) -> None:
    argv = ["train", "--data.path", "data", "--policy.budget", "50%"]
    (data / f"{part}.txt").write_text("")
    assert_refused(tmp_path, argv, f"{part}.txt", "no interactions")
    (data / f"{part}.txt").unlink()
    assert_refused(tmp_path, argv, f"{part}.txt: no such file")


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--policy.budget=2%"], "less than one weight a row"),
        (["--policy.budget=101%"], "above the dense table"),
        (["--policy.budget=lots"], "expected a share of dense fp32 as 20%"),
        (["--policy.budgt=20%"], "did you mean --policy.budget?"),
        ([], "give policy.budget"),
    ],
)
def test_impossible_sizes_and_unknown_keys_write_nothing(
    tmp_path: Path, data: Path, flags: list[str], part: str
) -> None:
    assert_refused(tmp_path, ["train", "--data.path", "data", *flags], part)


def test_the_installed_command_refuses_in_the_same_way(tmp_path: Path, data: Path) -> None:
    argv = ["train", "--data.path", "data"]
    assert_refused(tmp_path, [*argv, "--policy.budget=2%"], "less than one weight a row", run=command)
    (data / "train.txt").write_text("0 1 2\n1 2 -4\n")
    assert_refused(tmp_path, [*argv, "--policy.budget=50%"], "train.txt", ":2", run=command)


def test_eval_finds_the_data_from_another_directory(tmp_path: Path, data: Path) -> None:
    relative = os.path.relpath(data, tmp_path)
    code, _, err = within(
        "train", f"--data.path={relative}", "--policy.name=dense", "--run.name=a", *QUICK, folder=tmp_path
    )
    assert code == 0, err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, out, err = within("eval", "--run=../runs/a", folder=elsewhere)
    assert code == 0, err
    assert "recall@20" in out


def test_train_then_eval_agree(tmp_path: Path, data: Path) -> None:
    argv = [
        "train",
        "--data.path",
        "data",
        "--policy.name",
        "dsl",
        "--policy.budget",
        "40%",
        "--run.name",
        "first",
        *QUICK,
    ]
    code, out, err = command(*argv, folder=tmp_path)
    assert (code, err) == (0, "")
    assert out.count("epoch ") >= 3
    run = RunFolder(tmp_path / "runs" / "first")
    final = run.rows()[-1]
    assert final["event"] == "final"
    table = checkpoint.load(run.checkpoint("best")).tensors["table"]
    stored = sum(value.numel() * value.element_size() for value in table.values())
    assert stored == final["bytes"]["values"] + final["bytes"]["index"] <= 0.4 * 4 * 16 * final["rows"]
    assert "| first |" in (run.path / "report.md").read_text()
    code, out, err = within("eval", "--run", "runs/first", "--topk", "5", "20", "--json", folder=tmp_path)
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert shown["recall@20"] == final["test_recall@20"]
    assert shown["ndcg@20"] == final["test_ndcg@20"]
    assert 0 < shown["recall@5"] < shown["recall@20"]
    assert_refused(tmp_path, argv, "runs/first exists")
    assert_refused(tmp_path, ["train", "--resume", "runs/first", "--optim.lr=1"], "--resume keeps optim.lr")
    assert_refused(tmp_path, ["train", "--resume", "runs/first"], "is finished")


def test_protocol_paper_is_stamped_in_every_output(tmp_path: Path, data: Path) -> None:
    argv = ["train", "--data.path", "data", "--policy.name", "dense", "--data.protocol=paper", "--run.name=p", *QUICK]
    code, out, _ = within(*argv, folder=tmp_path)
    assert code == 0
    assert out.count("TEST-SELECTED") == 3 + 1 + 1
    assert "TEST-SELECTED" in (tmp_path / "runs" / "p" / "report.md").read_text()
    assert RunFolder(tmp_path / "runs" / "p").rows()[-1]["stamp"] == "TEST-SELECTED"
    assert "TEST-SELECTED" in within("eval", "--run", "runs/p", folder=tmp_path)[1]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_resume_ends_as_if_nothing_had_happened(
    tmp_path: Path, data: Path, signum: signal.Signals, status: int
) -> None:
    argv = ["train", "--data.path=data", "--policy.name=dense", *QUICK, "--train.epochs=60", "--train.patience=0"]
    assert within(*argv, "--run.name=whole", folder=tmp_path)[0] == 0
    process = start(*argv, "--run.name=stopped", folder=tmp_path)
    assert process.stdout is not None
    assert "epoch" in process.stdout.readline()
    process.send_signal(signum)
    _, err = process.communicate(timeout=300)
    assert process.returncode == status
    assert err.count("\n") == 1
    assert "recsparse train --resume" in err
    assert within("train", "--resume", "runs/stopped", folder=tmp_path)[0] == 0
    whole, stopped = (RunFolder(tmp_path / "runs" / name) for name in ("whole", "stopped"))
    assert len(stopped.rows()) == len(whole.rows()) == 61
    assert [row.get("loss") for row in stopped.rows()] == [row.get("loss") for row in whole.rows()]
    raw = [
        safetensors.torch.load_file(run.checkpoint("best") / "table.safetensors")["values"] for run in (whole, stopped)
    ]
    assert raw[0].equal(raw[1])


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, data: Path) -> None:
    argv = ["train", "--data.path=data", "--policy.name=dense", "--run.name=r", *QUICK]
    assert within(*argv, folder=tmp_path)[0] == 0
    for name in ("best", "last"):
        file = tmp_path / "runs" / "r" / "checkpoint" / name / "table.safetensors"
        file.write_bytes(file.read_bytes()[:-3])
    assert_refused(tmp_path, ["eval", "--run", "runs/r"], "best/table.safetensors is damaged")
    assert_refused(tmp_path, ["train", "--resume", "runs/r", "--train.epochs=5"], "last/table.safetensors is damaged")


def test_data_stats(tmp_path: Path, data: Path) -> None:
    code, out, err = within("data", "stats", "data", folder=tmp_path)
    assert (code, err) == (0, "")
    assert f"users                       {small_runs.USERS}" in out


def test_bench_scale_at_toy_size(tmp_path: Path) -> None:
    argv = [
        "bench",
        "scale",
        "--rows",
        "1e4",
        "--dim",
        "64",
        "--density",
        "0.05",
        "--samples",
        "3e4",
        "--json",
        "scale.json",
    ]
    code, _, err = command(*argv, folder=tmp_path)
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "scale.json").read_text())
    assert result["nnz"] <= 0.05 * 1e4 * 64
    assert result["dropped"] == result["grown"] > 0
    assert result["state_bytes"] < result["dense_adam_bytes"] / 10
    assert result["peak_rss_bytes"] >= result["baseline_rss_bytes"] > 0
    assert result["samples_per_second"] > 0


@pytest.mark.slow
def test_the_demo_compares_methods_at_equal_bytes(tmp_path: Path) -> None:
    code, out, err = command("demo", "--epochs", "2", folder=tmp_path)
    assert (code, err) == (0, "")
    folder = tmp_path / "runs" / "demo"
    text = (folder / "report.md").read_text()
    for label in ("dense", "small dense 30%", "DSL 30%", "small dense 15%", "DSL 15%"):
        assert label in out
        assert f"| {label} |" in text
    matplotlib = pytest.importorskip("matplotlib", reason="no plot without matplotlib")
    assert matplotlib is not None
    assert (folder / "quality.png").read_bytes()[:4] == b"\x89PNG"
    shares = {}
    for run in folder.iterdir():
        if run.is_dir():
            final = RunFolder(run).rows()[-1]
            shares[run.name] = (final["bytes"]["values"] + final["bytes"]["index"]) / (4 * 64 * final["rows"])
    assert 0.28 < shares["dsl-30"] <= 0.3
    assert 0.28 < shares["small-dense-30"] <= 0.3
    assert 0.14 < shares["dsl-15"] <= 0.15
    assert 0.14 < shares["small-dense-15"] <= 0.15
    (folder / ".recsparse-demo").unlink()
    assert_refused(tmp_path, ["demo"], "no earlier demo")


def test_a_closed_pipe_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(argv: list[str]) -> int:
        raise BrokenPipeError

    run: Callable[[list[str]], int] = closed
    monkeypatch.setitem(cli.COMMANDS, "doctor", cli.Command("", run))
    assert cli.main(["doctor"]) == 1
