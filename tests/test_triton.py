"""The Triton kernels: their cases under the interpreter and on a GPU, and what they compile to for a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.name for path in (ROOT / "tests" / "triton_kernels").glob("*_cases.py"))

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


# `range` of a tensor, which is an array of one element there.
OLD_INTERPRETER = "the interpreter of triton 3.6 does not work with numpy 2.4 and later"


def interpreter_works() -> bool:
    triton, numpy = (tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy"))
    return triton > (3, 6) or numpy < (2, 4)


def run(*command: str, interpret: bool = False) -> str:
    """What a command printed if it failed, else nothing."""
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | {"OMP_NUM_THREADS": "1"}
    env |= {"TRITON_INTERPRET": "1"} if interpret else {}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    return done.stdout[-6000:] + done.stderr[-2000:] if done.returncode else ""


def cases(module: str) -> tuple[str, ...]:
    return "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/triton_kernels/{module}"


@pytest.mark.parametrize("module", MODULES)
def test_under_the_interpreter(module: str) -> None:
    if not interpreter_works():
        pytest.skip(OLD_INTERPRETER)
    assert run(*cases(module), interpret=True) == ""


@pytest.mark.gpu
@pytest.mark.parametrize("module", MODULES)
def test_on_a_gpu(module: str) -> None:
    assert run(*cases(module)) == ""


def test_compiles_for_sm_90_without_local_memory() -> None:
    assert run("scripts/check_triton.py") == ""
