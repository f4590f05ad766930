"""`bench compare --base`: the worktree comes and goes, both sides run twice in turns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_peers
import pytest

from recsparse.bench import base
from recsparse.errors import UserError


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two commits, and temporary folders of its own."""
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "--quiet")
    for text in ("old", "new"):
        (root / "file").write_text(text)
        git(root, "add", "file")
        git(root, "commit", "--quiet", "-m", text)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return root


def left_behind(root: Path) -> tuple[int, list[Path]]:
    """Worktrees of the checkout, and temporary files."""
    return len(git(root, "worktree", "list").splitlines()), list((root.parent / "temporary").iterdir())


def test_the_worktree_holds_the_commit_and_is_gone_afterwards(repository: Path) -> None:
    with base._worktree(repository, base._commit(repository, "HEAD~1")) as (tree, folder):
        assert (tree / "file").read_text() == "old"
        assert left_behind(repository)[0] == 2
        (folder / "0.json").write_text("[]")
    assert left_behind(repository) == (1, [])
    assert (repository / "file").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_worktree_is_gone_after_an_error(repository: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), base._worktree(repository, base._commit(repository, "HEAD")):
        raise error
    assert left_behind(repository) == (1, [])


def test_the_worktree_and_what_runs_in_it_are_gone_after_sigterm(repository: Path) -> None:
    program = (
        "import sys, tempfile; from pathlib import Path; from recsparse.bench import base\n"
        f"root = Path({str(repository)!r}); tempfile.tempdir = str(root.parent / 'temporary')\n"
        "with base._worktree(root, base._commit(root, 'HEAD')) as (tree, folder):\n"
        "    code = \"import os, time; print(os.getpid(), file=open('pid', 'w'), flush=True); time.sleep(60)\"\n"
        "    print('ready', flush=True)\n"
        "    base._call([sys.executable, '-c', code], root.parent, {})\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        child.stdout.readline()
        pid = repository.parent / "pid"
        while not pid.exists() or not pid.read_text().strip():
            assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) != 0
    assert left_behind(repository) == (1, [])
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_what_is_no_commit_or_no_checkout_is_refused(repository: Path, tmp_path: Path) -> None:
    for ref in ("nothing", "--all", "HEAD:file"):
        with pytest.raises(UserError, match="no commit"):
            base._commit(repository, ref)
    with pytest.raises(UserError, match="not a git checkout"):
        base._commit(tmp_path / "temporary", "HEAD")


def test_sides_take_turns_and_only_ours_runs_by_default(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []

    def run(tree: Path, flags: Sequence[str], path: Path, what: str) -> list[dict[str, Any]]:
        seen.append((what, list(flags)))
        p50 = 100.0 + 10 * len(seen)
        times = {"p20_us": p50 - 1, "p50_us": p50, "p80_us": p50 + 1}
        return [{"op": "lookup", "case": {}, "threads": 1, "provider": "recsparse", "correct": True, **times}]

    monkeypatch.setattr(base, "_build", lambda tree, ref: None)
    monkeypatch.setattr(base, "_run", run)
    monkeypatch.setattr(base, "__file__", str(repository / "bench" / "base.py"))
    before, after = base.measure("HEAD~1", ["--op", "lookup"], lambda line: None)
    assert [what for what, _ in seen] == ["HEAD~1", "working tree", "working tree", "HEAD~1"]
    assert all(flags == ["--op", "lookup", "--provider", "recsparse"] for _, flags in seen)
    assert [row["p50_us"] for row in (*before, *after)] == [125.0, 125.0]  # a steady drift favours no side
    assert left_behind(repository) == (1, [])
    base.measure("HEAD", ["--provider=numba.csr"], lambda line: None)
    assert seen[-1][1] == ["--provider=numba.csr"]


def test_a_commit_that_does_not_build_is_one_line(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "__file__", str(repository / "bench" / "base.py"))
    with pytest.raises(UserError, match="does not build") as caught:
        base.measure("HEAD", [], lambda line: None)
    assert "\n" not in str(caught.value)
    assert left_behind(repository) == (1, [])


def test_peers_are_listed_one_a_line_and_torch_is_held() -> None:
    listed = bench_peers.peers(bench_peers.PEERS.read_text())
    assert {words[0].split("==")[0] for words in listed} == {
        "faiss-cpu",
        "fbgemm-gpu-cpu",
        "implicit",
        "numba",
        "scipy",
        "torch_geometric",
    }
    assert all("--no-deps" in words for words in listed if words[0].startswith("fbgemm"))
    assert bench_peers.peers("# only a comment\n\n a --no-deps # why\n") == [["a", "--no-deps"]]
    assert [line.split("==")[0] for line in bench_peers.constraints().splitlines()] == ["torch", "numpy"]


def test_a_peer_that_cannot_be_installed_is_named(tmp_path: Path) -> None:
    constraint = tmp_path / "constraints.txt"
    constraint.write_text("")
    problem = bench_peers.install(["--no-index", "no-such-package-anywhere"], constraint)
    assert problem is not None
    assert "\n" not in problem
