"""Every instruction set computes the same: bit for bit where no sum of products is involved, else to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from strategies import same_bits

ROOT = Path(__file__).resolve().parents[2]


def run(isa: str | None, *command: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "RECSPARSE_CPU_ISA"}
    env |= {"PYTHONPATH": str(ROOT)} | ({} if isa is None else {"RECSPARSE_CPU_ISA": isa})
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=300)


def results(isa: str | None, folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    file = folder / f"{isa}.safetensors"
    done = run(isa, str(Path(__file__).with_name("isa_cases.py")), str(file))
    assert done.returncode == 0, done.stderr
    with safe_open(file, "pt") as saved:
        return saved.metadata()["isa"], {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118


def test_instruction_sets_agree(tmp_path: Path) -> None:
    best, theirs = results(None, tmp_path)
    if best == "portable":
        pytest.skip("this CPU has no AVX-512 at the level of the kernels: nothing to compare the portable ones with")
    name, portable = results("portable", tmp_path)
    assert (best, name) == ("avx512", "portable")
    assert portable.keys() == theirs.keys()
    for key, tensor in portable.items():
        if key.startswith("exact"):
            assert same_bits(tensor, theirs[key]), key
        else:
            torch.testing.assert_close(tensor, theirs[key], rtol=1e-5, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")


def test_an_unknown_instruction_set_is_an_error_and_no_crash() -> None:
    """Also when two threads are at work: no exception may leave a parallel region."""
    program = """
import torch
from recsparse import _native
from recsparse.errors import BackendError

torch.set_num_threads(2)
try:
    _native.load()
except BackendError as error:
    print(error)
_native.load = lambda: None  # what follows is about the kernels themselves
from recsparse import ops
from recsparse.table import PackedTable
table, ids = PackedTable.from_dense(torch.ones(9, 4)), torch.zeros(5000, dtype=torch.int64)
for use in (torch.ops.recsparse.cpu_isa, lambda: ops.lookup(table, ids)):
    try:
        use()
    except RuntimeError as error:
        print(str(error).splitlines()[0])
"""
    done = run("sse9", "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == 3 * ["RECSPARSE_CPU_ISA=sse9: expected avx512 or portable"]
