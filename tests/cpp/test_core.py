"""Builds and runs core.cpp: csrc/core where tensors would be too large."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("core.cpp")
ROOT = SOURCE.parents[2]


def test_core_headers(tmp_path: Path) -> None:
    program = tmp_path / "core"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    # A trap instead of a message: that needs no run-time library, which not every machine has.
    flags += ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-fno-sanitize=alignment,pointer-overflow"]
    command = [os.environ.get("CXX", "g++"), *flags, f"-I{ROOT / 'csrc'}", str(SOURCE), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout or f"signal {-ran.returncode}"
