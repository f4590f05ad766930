"""The Triton kernels: their cases under the interpreter and on a GPU, and what they compile to for a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.name for path in (ROOT / "tests" / "triton_kernels").glob("*_cases.py"))

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def run(*command: str, interpret: bool = False) -> None:
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env |= {"TRITON_INTERPRET": "1"} if interpret else {}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def cases(module: str) -> tuple[str, ...]:
    return "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/triton_kernels/{module}"


@pytest.mark.parametrize("module", MODULES)
def test_under_the_interpreter(module: str) -> None:
    run(*cases(module), interpret=True)


@pytest.mark.gpu
@pytest.mark.parametrize("module", MODULES)
def test_on_a_gpu(module: str) -> None:
    run(*cases(module))


def test_compiles_for_sm_90_without_local_memory() -> None:
    run("scripts/check_triton.py")
