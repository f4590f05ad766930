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
LEVELS = ("avx512", "avx2", "portable")  # best first
# Those with a variant for each level.
OPS = (
    "lookup",
    "lookup_bag",
    "rounding",
    "bpr_step",
    "optimizer_step",
    "bpr_grow_scores",
    "select",
    "prune_regrow",
    "spmm",
    "soft_threshold",
    "lightgcn_step",
    "rank",
)


def run(isa: str | None, *command: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "RECSPARSE_CPU_ISA"}
    env |= {"PYTHONPATH": str(ROOT), "RECSPARSE_EXAMPLES": "25"} | ({} if isa is None else {"RECSPARSE_CPU_ISA": isa})
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=600)


def results(isa: str | None, folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    file = folder / f"{isa}.safetensors"
    done = run(isa, str(Path(__file__).with_name("isa_cases.py")), str(file))
    assert done.returncode == 0, done.stderr
    with safe_open(file, "pt") as saved:
        return saved.metadata()["isa"], {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, torch.Tensor]]:
    return results(None, tmp_path_factory.mktemp("best"))


def skip_unless_below(level: str, best: str) -> None:
    if LEVELS.index(level) <= LEVELS.index(best):
        pytest.skip(f"the best level of this CPU is {best}: nothing to compare {level} with")


@pytest.mark.parametrize("level", LEVELS[1:])
def test_instruction_sets_agree(level: str, best: tuple[str, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    skip_unless_below(level, best[0])
    name, theirs = results(level, tmp_path)
    assert name == level
    assert theirs.keys() == best[1].keys()
    for key, tensor in theirs.items():
        if key.startswith("exact"):
            assert same_bits(tensor, best[1][key]), key
        else:
            torch.testing.assert_close(tensor, best[1][key], rtol=1e-5, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("level", LEVELS[1:])
def test_every_instruction_set_passes_the_tests_of_the_ops(
    level: str, best: tuple[str, dict[str, torch.Tensor]]
) -> None:
    skip_unless_below(level, best[0])
    files = [str(Path(__file__).with_name(f"test_{op}.py")) for op in OPS]
    chosen = "not opcheck and not gradcheck and not compile"  # what does not depend on the instruction set
    done = run(level, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", chosen, *files)
    assert done.returncode == 0, done.stdout[-3000:]


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
    assert done.stdout.splitlines() == 3 * ["RECSPARSE_CPU_ISA=sse9: expected avx512, avx2 or portable"]
