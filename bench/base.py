"""Benchmark rows of a git commit and of the working tree: the commit is built in a throw-away worktree.

Each side runs its own code, benchmark included, in a process of its own. The order is commit, tree, tree, commit, so
that neither a machine that slows down nor one that speeds up favours a side.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from recsparse.errors import UserError

from .compare import merge
from .registry import OURS
from .rows import Row, read

RUN = "import sys; from recsparse.cli import main; sys.exit(main(['bench', 'run', *sys.argv[1:]]))"
SHADOWED = ("bench", "triton_kernels")


def measure(ref: str, flags: Sequence[str], say: Callable[[str], None]) -> tuple[list[Row], list[Row]]:
    """Rows of commit ``ref`` and of the working tree, each merged from two runs of ``bench run FLAGS``.

    Raises:
        UserError: this is no git checkout, no such commit, or it does not build or run.
    """
    root = Path(__file__).resolve().parent.parent
    commit = _commit(root, ref)
    # Peers do not change with our code.
    if not any(flag == "--provider" or flag.startswith("--provider=") for flag in flags):
        flags = [*flags, "--provider", OURS]
    with _worktree(root, commit) as (base, folder):
        say(f"building {ref} ({commit[:12]}) in {base}")
        _build(base, ref)
        runs: dict[Path, list[list[Row]]] = {base: [], root: []}
        for number, tree in enumerate((base, root, root, base)):
            say(f"run {number + 1} of 4: {ref if tree == base else 'working tree'}")
            runs[tree].append(_run(tree, flags, folder / f"{number}.json", ref if tree == base else "working tree"))
    return merge(runs[base]), merge(runs[root])


def _commit(root: Path, ref: str) -> str:
    command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"]
    try:
        inside = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--show-toplevel"], capture_output=True, text=True
        )
        found = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"--base: git cannot be run ({error.strerror})") from None
    if inside.returncode or Path(inside.stdout.strip()).resolve() != root:
        raise UserError(f"--base: {root} is not a git checkout; install with `pip install -e` from one")
    if found.returncode:
        raise UserError(f"--base: {ref} is no commit of {root}; see `git log`")
    return found.stdout.strip()


@contextmanager
def _worktree(root: Path, commit: str) -> Iterator[tuple[Path, Path]]:
    """A worktree and the folder around it; both are gone afterwards, also after an error, Ctrl-C or SIGTERM."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    folder = Path(tempfile.mkdtemp(prefix="recsparse-base-"))
    tree = folder / "tree"
    git = ["git", "-C", str(root), "worktree"]
    try:
        added = subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], capture_output=True, text=True)
        if added.returncode:
            raise UserError(f"--base: git worktree failed: {' '.join(added.stderr.split())}")
        yield tree, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([*git, "prune"], capture_output=True)
        signal.signal(signal.SIGTERM, before)


def _build(tree: Path, ref: str) -> None:
    built = _call([sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"], tree, dict(os.environ))
    if built.returncode:
        raise UserError(f"--base: {ref} does not build: {_last_line(built)}")
    # An install maps these folders into the package; links do the same for a bare path.
    for name in SHADOWED:
        link = tree / "recsparse" / name
        if not link.exists():
            link.symlink_to(tree / name, target_is_directory=True)


def _run(tree: Path, flags: Sequence[str], path: Path, what: str) -> list[Row]:
    environment = dict(os.environ)
    if path.parent == tree.parent:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(tree), environment.get("PYTHONPATH")]))
    done = _call([sys.executable, "-c", RUN, *flags, "--json", str(path)], path.parent, environment)
    if not path.exists():
        raise UserError(f"--base: `bench run` fails for {what}: {_last_line(done)}")
    return read(path)


def _call(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Like subprocess.run, but what was started does not outlive an interrupt."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"
