"""Which implementation serves a table."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from strategies import KINDS, random_table, random_triples, same_bits

from recsparse import BackendError, doctor, ops
from recsparse.backend import resolve_backend
from recsparse.optim import Adam
from recsparse.table import PackedTable


def test_auto_takes_the_native_kernels() -> None:
    assert resolve_backend("auto") == resolve_backend("cpu") == "cpu"
    assert PackedTable.init(10, 8, kind="bits", capacity=20).backend == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
@pytest.mark.parametrize(
    ("name", "why"),
    [("cuda", "torch (is a CPU build|sees no NVIDIA GPU)"), ("triton", "(triton is not installed|no GPU);")],
)
def test_a_backend_that_cannot_serve_says_why_and_nothing_else_steps_in(name: str, why: str) -> None:
    with pytest.raises(BackendError, match=f"^backend {name}: {why}"):
        PackedTable.init(10, 8, kind="bits", capacity=20, backend=name)
    with pytest.raises(BackendError, match=f"^backend {name}: {why}"):
        PackedTable.from_dense(torch.ones(2, 3), backend=name)


def test_a_machine_without_triton_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="backend triton: triton is not installed; pip install triton"):
        resolve_backend("triton")
    assert {check.name: check for check in doctor.collect()}["backend triton"].value == "triton is not installed"


def test_an_op_without_a_triton_kernel_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from recsparse import triton_kernels

    table = random_table("bits", 10, 8)
    monkeypatch.setattr(table, "backend", "triton")
    monkeypatch.delattr(triton_kernels, "lookup")
    with pytest.raises(BackendError, match=r"^lookup: backend triton has no kernel for it; use backend cuda, or move"):
        ops.lookup(table, torch.arange(3))


def test_recsparse_does_not_import_triton() -> None:
    """Only a table with that backend does: triton is an optional package, and a slow import."""
    code = """if True:
        import sys
        from recsparse.table import PackedTable

        PackedTable.init(4, 8, kind="full", capacity=32, start="full")
        print("triton" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_a_backend_of_the_cpu_serves_no_other_device(name: str) -> None:
    with pytest.raises(BackendError, match=f"backend {name}: the tensors are on cuda, expected cpu"):
        resolve_backend(name, "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_auto_on_a_gpu_names_what_both_backends_miss() -> None:
    with pytest.raises(BackendError, match=r"backend cuda: .*; backend triton: "):
        resolve_backend("auto", "cuda")


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match="backend is 'tpu', expected one of auto, cuda, triton, cpu, reference"):
        PackedTable.from_dense(torch.ones(2, 3), backend="tpu")


def test_the_reference_never_calls_a_native_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table("bits", 30, 33, backend="reference")
    optimizer = Adam(table)
    triples = random_triples(9, 10, 20)

    def called(*args: object) -> None:
        raise AssertionError("a native kernel was called")

    for op in ("lookup", "unpack", "bpr_step_", "bpr_grow_scores"):
        monkeypatch.setattr(torch.ops.recsparse, op, called)
    ops.lookup(table, torch.arange(3))
    ops.unpack(table)
    ops.bpr_step_(table, optimizer, *triples, item_offset=10, batch_size=4)
    ops.bpr_grow_scores(table, *triples, item_offset=10, limit=5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_works_end_to_end(kind: str) -> None:
    tables = [random_table(kind, 30, 33, scale=0.3, backend=backend) for backend in ("reference", "cpu")]
    triples = random_triples(50, 10, 20)
    for table in tables:
        optimizer = Adam(table)
        ops.bpr_step_(table, optimizer, *triples, item_offset=10, batch_size=16, l2=0.1)
        table.check_invariants()
        optimizer.check_invariants()
    slow, fast = tables
    torch.testing.assert_close(slow.to_dense(), fast.to_dense(), rtol=1e-5, atol=1e-6)
    fast.load_state_dict(slow.state_dict())
    ids = torch.tensor([3, 29, 3, 0])
    grads = []
    for table in tables:
        table.values.requires_grad_()
        rows = ops.lookup(table, ids)
        rows.square().sum().backward()
        grads.append((rows, table.values.grad))
    assert same_bits(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1])
    assert same_bits(slow.to_dense(), fast.to_dense())


@pytest.mark.parametrize("bounds", ["fatal", "warning", "ignore"])
def test_the_reference_has_the_same_bounds_modes(bounds: str) -> None:
    table = random_table("bits", 10, 7, backend="reference")
    ids = torch.tensor([4, 10, -1])
    message = r"lookup: ids\[1\] = 10 is out of range, expected 0\.\.9"
    if bounds == "fatal":
        with pytest.raises(IndexError, match=message):
            ops.lookup(table, ids)
        return
    if bounds == "warning":
        with pytest.warns(UserWarning, match=message):
            rows = ops.lookup(table, ids, bounds=bounds)
    else:
        rows = ops.lookup(table, ids, bounds=bounds)
    assert same_bits(rows, table.to_dense()[[4, 0, 0]])
