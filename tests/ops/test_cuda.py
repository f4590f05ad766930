"""The CUDA kernels and their bindings, run by the emulator, pass the tests of the ops in either order of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import native
import pytest
from cuda_emulator import emulated

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
OPS = (
    "lookup",
    "lookup_bag",
    "bpr_step",
    "bpr_step_optimizers",
    "bpr_grow_scores",
    "optimizer_step",
    "rounding",
    "select",
    "prune_regrow",
    "pack",
    "convert_index",
    "init",
    "sample",
    "spmm",
    "soft_threshold",
    "rank",
    "lightgcn_step",
    "far_offsets",
)
# Not of the CUDA kernels: double precision; the order in which a hot row's gradients are summed; what only the host
# could see in its arguments; the CPU's streaming stores; passes over gigabytes; rankings too long for an emulator; what
# does not depend on the kernels.
LEFT_OUT = (
    "opcheck",
    "gradcheck",
    "compile",
    "ascending_position",
    "large",
    "out_is_written",
    "many_slabs",
    "whole_table",
    "same_bits_for_any_thread",
    "bad_arguments",
    "mistakes_are_named",
    "sort_keys_that_do_not_fit",
    "slot_keys",
    "row_ids",
    "whole_passes",
    "lists_go_on",
    "score_matrix",
    "screens_agree and (-64] or -300])",
    "far_values",
    "far_sparse_table",
    "same_bits_for_any_number",
    "number_of_threads",
    "200_full_steps and not bits",
)


def run(*arguments: str, order: str = "forward") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{TESTS}", "RECSPARSE_EMULATOR_ORDER": order},
        capture_output=True,
        text=True,
        timeout=600,
    )


def run_tests(files: list[str], chosen: str, order: str = "forward") -> None:
    plugins = ["-p", "no:cacheprovider", "-p", "cuda_emulator.emulated"]
    done = run("-m", "pytest", "-q", "-x", *plugins, "-k", chosen, *files, order=order)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.fixture(scope="module")
def library() -> Path:
    return emulated.build()


@pytest.mark.parametrize("op", OPS)
def test_the_kernels_pass_the_tests_of_the_op(op: str, library: Path) -> None:
    run_tests([str(TESTS / "ops" / f"test_{op}.py")], " and ".join(f"not ({name})" for name in LEFT_OUT))


def test_threads_in_descending_order_change_nothing(library: Path) -> None:
    """One test of each op: a barrier that is missing shows in one order of the threads or in the other."""
    chosen = ("lookup", "bpr_step", "select", "prune_regrow", "pack", "spmm", "rank", "lightgcn_step")
    files = [str(TESTS / "ops" / f"test_{op}.py") for op in chosen]
    run_tests(files, "reference and not opcheck and not compile and not gradcheck", order="reverse")


def test_the_trainer_runs_on_them(library: Path) -> None:
    """With LightGCN also propagation and evaluation, which rank by the emulated kernels then."""
    run_tests([str(TESTS / "test_train.py")], "mask_updates or stages_follow or every_single_step")
    run_tests([str(TESTS / "test_lightgcn.py")], "learns_stops and dsl or ranks_by or eval_propagates")


BROKEN = """
#include "cuda/launch.h"
namespace recsparse::cuda {{
struct Sums {{ int of[kThreads]; }};
__global__ void broken(int* out) {{ {body} }}
extern "C" int go() {{
  int out = 0;
  launch("broken", broken, 1, 64, nullptr, &out);
  return out;
}}
}}
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if (threadIdx.x < 40) __syncthreads();", "broken: some threads have left, others wait at __syncthreads"),
        ("if (threadIdx.x != 7) __syncwarp();", "broken: a thread leaves while its warp waits for it"),
        ("if (threadIdx.x % 2) __syncwarp(); else __syncthreads();", "deadlock"),
        ("__shfl_sync(0xffu, 1, 0);", "a collective of a part of a warp"),
    ],
)
def test_the_emulator_stops_at_what_a_gpu_would_hang_on(tmp_path: Path, body: str, message: str) -> None:
    source, program = tmp_path / "broken.cpp", tmp_path / "broken.so"
    source.write_text(BROKEN.format(body=body))
    folder = emulated.ROOT / "tests" / "cuda_emulator"
    includes = [f"-I{emulated.ROOT / 'csrc'}", f"-I{folder}"]
    flags = ["-std=c++17", "-shared", "-fPIC", "-DRECSPARSE_CUDA_EMULATOR", *includes]
    subprocess.run(["g++", *flags, str(source), str(folder / "cuda_emulator.cpp"), "-o", str(program)], check=True)
    done = run("-c", f"import ctypes; ctypes.CDLL({str(program)!r}).go()")
    assert done.returncode != 0
    assert message in done.stderr


def test_shared_memory_that_nobody_wrote_is_garbage(tmp_path: Path) -> None:
    source, program = tmp_path / "fresh.cpp", tmp_path / "fresh.so"
    source.write_text(BROKEN.format(body="Sums& s = shared<Sums>(); if (threadIdx.x == 0) *out = s.of[3] == 0;"))
    folder = emulated.ROOT / "tests" / "cuda_emulator"
    includes = [f"-I{emulated.ROOT / 'csrc'}", f"-I{folder}"]
    flags = ["-std=c++17", "-shared", "-fPIC", "-DRECSPARSE_CUDA_EMULATOR", *includes]
    subprocess.run(["g++", *flags, str(source), str(folder / "cuda_emulator.cpp"), "-o", str(program)], check=True)
    assert run("-c", f"import ctypes; assert ctypes.CDLL({str(program)!r}).go() == 0").returncode == 0


def test_the_bindings_compile_for_a_gpu(tmp_path: Path) -> None:
    """As they are where nvcc and a CUDA build of torch meet; all in one file, which compiles faster."""
    bindings = native.sources("csrc/torch/*_cuda.cpp")
    unity = tmp_path / "bindings.cpp"
    unity.write_text("".join(f'#include "{path}"\n' for path in bindings))
    command = ["g++", "-fsyntax-only", "-std=c++17", "-Wall", "-Wextra"]
    command += ["-I", str(ROOT / "csrc"), *native.torch_flags(), str(unity)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    assert "warning" not in done.stderr
