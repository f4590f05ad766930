"""adam_, adagrad_, rowwise_adagrad_ and sgd_ in Triton against the native ops: every gradient form, lazy and full."""

from __future__ import annotations

import pytest
import torch
from strategies import DTYPES, KINDS, random_table, same_bits
from torch import Tensor
from triton_tables import DEVICE, INTERPRETED, on_device, on_triton, pair

from recsparse.optim import OPTIMIZERS, TableOptimizer
from recsparse.reference.rounding import round_stochastic, rounding_bits
from recsparse.table import PackedTable

ROWS = 45


def gradients(table: PackedTable, form: str, hot: int = 0) -> tuple[Tensor, Tensor | None]:
    """(gradient, ids) of a form; of `rows`, ids repeat, and row 7 comes `hot` times more."""
    rng = torch.Generator().manual_seed(1)
    if form == "rows":
        ids = torch.cat([torch.randint(0, table.rows, (50,), generator=rng), torch.full((hot,), 7)])
        return torch.randn(len(ids), table.dim, generator=rng), ids
    shape = (table.rows, table.dim) if form == "dense" else (table.capacity,)
    return torch.randn(shape, generator=rng), None


def update(optimizer: TableOptimizer, grad: Tensor, ids: Tensor | None, steps: int = 2) -> None:
    device = optimizer.table.values.device
    for _ in range(steps):
        optimizer._update(grad.to(device), None if ids is None else ids.to(device))


def assert_close(kind: str, dim: int, name: str, form: str, lazy: bool, hot: int = 0) -> None:
    tables = pair(kind, ROWS, dim, seed=dim, scale=0.3, slack=0 if kind == "full" else 5)
    grad, ids = gradients(tables[0], form, hot)
    optimizers = [OPTIMIZERS[name](table, lr=0.01, weight_decay=0.1, lazy=lazy) for table in tables]
    for optimizer in optimizers:
        update(optimizer, grad, ids)
    native, triton = optimizers
    torch.testing.assert_close(triton.state.cpu(), native.state, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(tables[1].values.cpu(), tables[0].values, rtol=1e-5, atol=1e-5)
    assert int(triton.step) == 2
    tables[1].check_invariants()
    triton.check_invariants()


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("form", ["rows", "dense", "packed"])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimiser_and_form(name: str, form: str, lazy: bool) -> None:
    assert_close("bits", 33, name, form, lazy)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 64, 256])
def test_every_kind(kind: str, dim: int) -> None:
    """The three kernels with Adam: rows, table, stream."""
    assert_close(kind, dim, "adam", "rows", True)
    assert_close(kind, dim, "adam", "dense", False)
    assert_close(kind, dim, "adam", "packed", False)


@pytest.mark.parametrize("name", ["adam", "rowwise_adagrad"])
@pytest.mark.parametrize("lazy", [True, False])
def test_a_row_that_occurs_very_often(name: str, lazy: bool) -> None:
    assert_close("bits", 33, name, "rows", lazy, hot=200)


def test_a_table_longer_than_a_block_of_the_stream() -> None:
    tables = pair("bits", 90, 64, density=0.5, slack=900)
    grad, _ = gradients(tables[0], "packed")
    assert tables[0].nnz > 1024
    optimizers = [OPTIMIZERS["adam"](table, lr=0.01, lazy=False) for table in tables]
    for optimizer in optimizers:
        update(optimizer, grad, None)
        optimizer.table.check_invariants()  # the gradient behind the kept weights is not zero, and they are
    torch.testing.assert_close(tables[1].values.cpu(), tables[0].values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(optimizers[1].state.cpu(), optimizers[0].state, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize(("form", "lazy"), [("rows", True), ("packed", False)])
def test_16_bit_weights_round_with_the_bits_of_the_reference(form: str, lazy: bool, dtype: torch.dtype) -> None:
    small = on_triton(random_table("bits", ROWS, 33, scale=0.3, dtype=dtype))
    wide = PackedTable(ROWS, 33, "bits", small.index, small.cols, small.values.float(), "triton")
    grad, ids = gradients(small, form)
    for table in (small, wide):
        update(OPTIMIZERS["adam"](table, lr=0.01, lazy=lazy, seed=-5), grad, ids, steps=1)
    mask = random_table("bits", ROWS, 33, scale=0.3, dtype=dtype).mask()
    random = rounding_bits(-5, 1, torch.arange(ROWS)[:, None], mask.cumsum(1) - 1)[mask]
    touched = torch.ones(ROWS, dtype=torch.bool) if ids is None else torch.zeros(ROWS, dtype=torch.bool)
    if ids is not None:
        touched[ids] = True
    exact = wide.values[: wide.nnz].cpu()
    changed = touched[:, None].expand_as(mask)[mask]
    want = torch.where(changed, round_stochastic(exact, dtype, random), exact.to(dtype))
    assert same_bits(small.values[: small.nnz].cpu(), want)


@pytest.mark.parametrize("form", ["rows", "dense", "packed"])
def test_nothing_to_do(form: str) -> None:
    """No ids, no rows: the step still counts."""
    table = on_triton(PackedTable.from_dense(torch.empty(0, 8)))
    optimizer = OPTIMIZERS["adam"](table)
    shape = {"rows": (0, 8), "dense": (0, 8), "packed": (0,)}[form]
    ids = torch.empty(0, dtype=torch.int64, device=DEVICE) if form == "rows" else None
    optimizer._update(torch.empty(shape, device=DEVICE), ids)
    assert int(optimizer.step) == 1


def test_wrong_arguments_are_named() -> None:
    table = on_triton(random_table("bits", 10, 33))
    optimizer = OPTIMIZERS["adam"](table)
    ids = on_device(torch.tensor([0, 1, 9]))
    with pytest.raises(ValueError, match=r"adam_: grad has shape \[2, 33\], expected \[3, 33\], a row for each of ids"):
        optimizer.update_rows(ids, torch.zeros(2, 33, device=DEVICE))
    with pytest.raises(ValueError, match=r"adam_: grad has shape \[9, 33\], expected \[10, 33\], a dense gradient"):
        optimizer.update_dense(torch.zeros(9, 33, device=DEVICE))
    with pytest.raises(TypeError, match=r"adam_: grad has dtype torch\.float64, expected torch\.float32"):
        optimizer.update_packed(torch.zeros(table.capacity, dtype=torch.float64, device=DEVICE))
    if INTERPRETED:
        with pytest.raises(IndexError, match=r"adam_: ids\[2\] = 10 is out of range, expected 0\.\.9"):
            optimizer.update_rows(torch.tensor([0, 1, 10]), torch.zeros(3, 33))
    assert int(optimizer.step) == 0
