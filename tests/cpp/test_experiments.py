"""The programs of bench/experiments use the kernels: they have to follow them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted((ROOT / "bench" / "experiments").glob("*.cpp"))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the experiments are written for x86")
@pytest.mark.parametrize("source", PROGRAMS, ids=[source.stem for source in PROGRAMS])
def test_experiment_compiles_with_the_flags_in_its_head(source: Path) -> None:
    head = re.search(r"g\+\+ (.*?)-Icsrc", source.read_text().replace("\\\n//", ""), flags=re.DOTALL)
    assert head is not None
    command = [os.environ.get("CXX", "g++"), *head.group(1).split(), "-Icsrc", "-fsyntax-only", str(source)]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert built.returncode == 0, built.stderr
