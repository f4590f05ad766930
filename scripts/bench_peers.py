"""Installs the packages of bench/peers.txt into the environment of this interpreter, each on its own, and says which
could not be installed. torch and numpy stay as they are: a peer that needs others is left out."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PEERS = Path(__file__).resolve().parent.parent / "bench" / "peers.txt"
KEPT = ("torch", "numpy")


def peers(text: str) -> list[list[str]]:
    """pip's arguments for each line that names a package."""
    lines = (line.split("#", 1)[0].split() for line in text.splitlines())
    return [line for line in lines if line]


def constraints() -> str:
    """Lines that hold the kept packages at the versions that are there."""
    found = []
    for name in KEPT:
        try:
            found.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "\n".join(found) + "\n"


def install(arguments: Sequence[str], constraint: Path) -> str | None:
    """None, or the last line of what pip says went wrong."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--constraint", str(constraint), *arguments], capture_output=True, text=True)
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    return errors[-1] if errors else f"pip ended with status {done.returncode}"


def main() -> int:
    """0 if all are installed, 1 if some are not: the benchmark runs without them."""
    missing = 0
    with tempfile.TemporaryDirectory() as folder:
        constraint = Path(folder) / "constraints.txt"
        constraint.write_text(constraints())
        for arguments in peers(PEERS.read_text()):
            problem = install(arguments, constraint)
            print(f"{arguments[0]}: {'installed' if problem is None else f'not installed: {problem}'}", flush=True)
            missing += problem is not None
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
