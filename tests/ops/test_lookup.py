"""lookup: values, gradients, bounds modes and errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DIMS, DTYPES, KINDS, dims, kinds, random_case, random_table, same_bits, seeds
from torch import Tensor

from recsparse import ops, reference
from recsparse.table import PackedTable

FAR = (-1, 10, 2**31, 2**32 + 3, 2**63 - 1, -(2**63))


def ids_of(n: int, rows: int, seed: int = 0) -> Tensor:
    return torch.randint(0, rows, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_equals_the_reference_bit_for_bit(kind: str, dim: int) -> None:
    table = random_table(kind, 61, dim, seed=dim, slack=3)
    ids = ids_of(200, 61)
    want = reference.lookup(table.index, table.cols, table.values, ids, *table.layout)
    assert same_bits(ops.lookup(table, ids), want)


@given(kinds, dims, st.integers(1, 300), st.integers(0, 100), seeds)
def test_rows_come_back_bit_for_bit(kind: str, dim: int, rows: int, n: int, seed: int) -> None:
    dense, mask = random_case(kind, rows, dim, seed=seed, odd=True)
    table = PackedTable.from_dense(dense, mask, kind=kind)
    ids = ids_of(n, rows, seed)
    assert same_bits(ops.lookup(table, ids), dense[ids])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [7, 64, 100, 128, 256])
def test_large_outputs(kind: str, dim: int, threads: int, poison: None) -> None:
    """Above 2 MB the output of some widths is written past the caches."""
    dense, mask = random_case(kind, 2_000, dim, seed=3)
    table = PackedTable.from_dense(dense, mask, kind=kind)
    n = 5 * 2**20 // (4 * dim) + 1
    ids = ids_of(n, 2_000, 1)
    assert same_bits(ops.lookup(table, ids), dense[ids])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [7, 64, 100])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_out_is_written_and_nothing_around_it(kind: str, dim: int, backend: str, threads: int) -> None:
    """Also at an address that streaming stores cannot take, above and below their size."""
    table = random_table(kind, 50, dim, backend=backend)
    for n in (3, 3 * 2**20 // (4 * dim)):
        ids = ids_of(n, 50)
        for offset in (16, 17):
            room = torch.full((n * dim + 2 * offset,), 99.0)
            out = room[offset : offset + n * dim].view(n, dim)
            assert ops.lookup(table, ids, out=out) is out
            assert same_bits(out, table.to_dense()[ids])
            assert bool((room[:offset] == 99).all())
            assert bool((room[offset + n * dim :] == 99).all())


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (torch.empty(3, 32), ValueError, "out has shape [3, 32], expected [3, 33]"),
        (torch.empty(2, 33), ValueError, "out has shape [2, 33], expected [3, 33]"),
        (torch.empty(99), ValueError, "out has shape [99], expected [3, 33]"),
        (torch.empty(3, 33).double(), TypeError, "out has dtype Double, expected Float"),
        (torch.empty(33, 3).T, ValueError, "out is not contiguous; call .contiguous() on it"),
    ],
)
def test_wrong_out_is_named(out: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        ops.lookup(random_table("bits", 10, 33), torch.zeros(3, dtype=torch.int64), out=out)
    assert f"lookup: {message}" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_no_ids_and_repeated_ids(kind: str) -> None:
    table = random_table(kind, 20, 33)
    assert ops.lookup(table, torch.empty(0, dtype=torch.int64)).shape == (0, 33)
    assert same_bits(ops.lookup(table, torch.full((50,), 5)), table.to_dense()[5].expand(50, 33))


def test_a_table_without_rows() -> None:
    table = PackedTable.from_dense(torch.empty(0, 8))
    assert ops.lookup(table, torch.empty(0, dtype=torch.int64)).shape == (0, 8)
    for bounds in ops.lookup.__globals__["BOUNDS"]:
        with pytest.raises(IndexError, match="lookup: ids given for a table without rows"):
            ops.lookup(table, torch.zeros(1, dtype=torch.int64), bounds=bounds)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", FAR)
def test_fatal_names_the_id_and_its_position(kind: str, bad: int) -> None:
    ids = torch.arange(10).repeat(3)
    ids[17], ids[29] = bad, bad
    with pytest.raises(IndexError) as caught:
        ops.lookup(random_table(kind, 10, 33), ids)
    expected = f"lookup: ids[17] = {bad} is out of range, expected 0..9 (2 of 30 ids are)"
    assert str(caught.value).splitlines()[0] == expected


def test_fatal_names_the_first_of_many(threads: int) -> None:
    ids = torch.full((5_000,), 77)
    ids[:1_234] = 3
    with pytest.raises(IndexError, match=r"ids\[1234\] = 77 is out of range, expected 0\.\.9 \(3766 of 5000 ids are\)"):
        ops.lookup(random_table("bits", 10, 7), ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", FAR)
def test_warning_and_ignore_read_row_0(kind: str, bad: int, capfd: pytest.CaptureFixture[str]) -> None:
    table = random_table(kind, 10, 33)
    ids = torch.tensor([4, bad, 9, bad])
    want = table.to_dense()[[4, 0, 9, 0]]
    assert same_bits(ops.lookup(table, ids, bounds="ignore"), want)
    ops.lookup(table, ids[::2].contiguous(), bounds="warning")
    assert capfd.readouterr().err == ""
    # A warning of native code called through torch.ops goes to stderr: torch routes it to `warnings` nowhere else.
    assert same_bits(ops.lookup(table, ids, bounds="warning"), want)
    message = f"lookup: 2 of 4 ids are out of range 0..9, first ids[1] = {bad}; row 0 was read instead"
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.zeros(3, dtype=torch.int32), TypeError, "ids has dtype Int, expected Long"),
        (torch.zeros(3), TypeError, "ids has dtype Float, expected Long"),
        (torch.zeros(3, 1, dtype=torch.int64), ValueError, "ids has shape [3, 1], expected one dimension"),
        (torch.zeros(6, dtype=torch.int64)[::2], ValueError, "ids is not contiguous; call .contiguous() on it"),
    ],
)
def test_wrong_ids_are_named(ids: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        ops.lookup(random_table("bits", 10, 33), ids)
    assert f"lookup: {message}" in str(caught.value)
    assert len(str(caught.value).strip().splitlines()) == 1


def test_an_unknown_bounds_mode_is_named() -> None:
    with pytest.raises(ValueError, match="bounds is 'strict', expected one of fatal, warning, ignore"):
        ops.lookup(random_table("bits", 10, 33), torch.zeros(1, dtype=torch.int64), bounds="strict")


Change = Callable[[dict[str, Tensor | int]], dict[str, Tensor | int]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: {"index": a["index"].int()}, TypeError, "index has dtype Int, expected Long"),
        (lambda a: {"cols": a["cols"].int()}, TypeError, "cols has dtype Int, expected Byte"),
        (lambda a: {"values": a["values"].int()}, TypeError, "values has dtype Int, expected Float, Half"),
        (lambda a: {"values": a["values"].view(-1, 1)}, ValueError, "expected one dimension"),
        (lambda a: {"index": a["index"][:-1]}, ValueError, "index has 15 words, expected 16"),
        (lambda a: {"cols": a["cols"][:-1].clone()}, ValueError, "entries, expected"),
        (lambda a: {"values": a["values"].repeat(2)[::2]}, ValueError, "values is not contiguous"),
        (lambda a: {"kind": 4}, ValueError, "index kind 4 is not one of 0 (full) .. 3 (cols8)"),
        (lambda a: {"kind": -1}, ValueError, "index kind -1"),
        (lambda a: {"dim": 257}, ValueError, "dim is 257, expected 1..256"),
        (lambda a: {"rows": -1}, ValueError, "rows is -1, expected 0..2^40"),
        (lambda a: {"rows": 2**41}, ValueError, "rows is 2199023255552"),
        (lambda a: {"bounds": 3}, ValueError, "bounds is 3, expected 0, 1 or 2"),
    ],
)
def test_a_wrong_table_is_named(change: Change, error: type[Exception], message: str) -> None:
    table = random_table("cols8", 60, 33)
    kind, rows, dim = table.layout
    args = {**table.state_dict(), "ids": torch.zeros(1, dtype=torch.int64), "kind": kind, "rows": rows, "dim": dim}
    with pytest.raises(error) as caught:
        torch.ops.recsparse.lookup(**{**args, **change(args)})
    assert message in str(caught.value)
    assert len(str(caught.value).strip().splitlines()) == 1


def test_meta_ids_with_a_cpu_table_are_an_error() -> None:
    """Not memory that nobody has written, which is what a fake kernel makes of them."""
    with pytest.raises(ValueError, match="lookup: ids is on meta, expected cpu"):
        ops.lookup(random_table("bits", 10, 33), torch.zeros(1, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_gradient_equals_index_add(kind: str, dim: int) -> None:
    table = random_table(kind, 40, dim, seed=dim, slack=4)
    ids = ids_of(200, 40)
    table.values.requires_grad_()
    # Integers: sums are exact, so the order of the additions does not matter here.
    grad = torch.randint(-8, 9, (200, dim)).float()
    ops.lookup(table, ids).backward(grad)
    want = torch.zeros(40, dim).index_add(0, ids, grad)[table.mask()]
    assert torch.equal(table.values.grad[: table.nnz], want)
    assert not table.values.grad[table.nnz :].any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_sums_in_ascending_position(kind: str, threads: int) -> None:
    """Three hot rows and many cold ones: the sum of a row runs over its occurrences in order, whoever computes it."""
    table = random_table(kind, 300, 33, slack=4)
    ids = torch.where(torch.rand(6_000, generator=torch.Generator().manual_seed(0)) < 0.5, 7, ids_of(6_000, 300))
    table.values.requires_grad_()
    grad = torch.randn(6_000, 33, generator=torch.Generator().manual_seed(1))
    ops.lookup(table, ids).backward(grad)
    want = torch.zeros(300, 33)
    for position, row in enumerate(ids.tolist()):
        want[row] += grad[position]
    assert same_bits(table.values.grad[: table.nnz], want[table.mask()])
    assert not table.values.grad[table.nnz :].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_a_hot_row_gets_the_sum_of_all_its_gradients(kind: str, dim: int) -> None:
    table = random_table(kind, 30, dim, slack=4)
    ids = torch.where(torch.arange(700) % 3 < 2, 7, ids_of(700, 30))
    table.values.requires_grad_()
    grad = torch.randn(700, dim, generator=torch.Generator().manual_seed(1))
    ops.lookup(table, ids).backward(grad)
    want = torch.zeros(30, dim, dtype=torch.float64).index_add(0, ids, grad.double()).float()
    torch.testing.assert_close(table.values.grad[: table.nnz], want[table.mask()], rtol=1e-4, atol=1e-4)


def test_gradient_of_bad_ids_goes_to_row_0() -> None:
    table = random_table("bits", 10, 33)
    table.values.requires_grad_()
    ops.lookup(table, torch.tensor([4, -1, 99]), bounds="ignore").backward(torch.ones(3, 33))
    want = torch.zeros(10, 33)
    want[4], want[0] = 1, 2
    assert torch.equal(table.values.grad, want[table.mask()])


def test_gradient_need_not_be_contiguous() -> None:
    table = random_table("bits", 10, 33)
    table.values.requires_grad_()
    (ops.lookup(table, torch.tensor([4, 4, 1])).sum() * 2).backward()
    want = torch.zeros(10, 33)
    want[4], want[1] = 4, 2
    assert torch.equal(table.values.grad, want[table.mask()])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 33, 160])
def test_gradcheck(kind: str, dim: int) -> None:
    table = random_table(kind, 6, dim, slack=2)
    values = table.values.double().requires_grad_()
    ids = torch.tensor([5, 0, 5, 2])

    def rows(values: Tensor) -> Tensor:
        return torch.ops.recsparse.lookup(table.index, table.cols, values, ids, *table.layout)

    torch.autograd.gradcheck(rows, (values,))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(kind: str, dtype: torch.dtype) -> None:
    table = random_table(kind, 40, 33, slack=2, dtype=dtype)
    ids = ids_of(30, 40)
    table.values.requires_grad_()
    arguments = (table.index, table.cols, table.values, ids, *table.layout)
    torch.library.opcheck(torch.ops.recsparse.lookup.default, arguments)
    # The schema test alone: the functional op is the one to trace, so this overload has no fake kernel.
    out = {"out": torch.empty(30, 33, dtype=dtype)}
    torch.library.opcheck(torch.ops.recsparse.lookup.out, arguments, out, test_utils="test_schema")
    grad = torch.randn(30, 33).to(dtype)
    args = (grad, table.index, table.cols, ids, *table.layout, -1, table.capacity)
    torch.library.opcheck(torch.ops.recsparse.lookup_backward, args)


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_into_one_graph(kind: str) -> None:
    table = random_table(kind, 40, 33)
    table.values.requires_grad_()

    def loss(ids: Tensor) -> Tensor:
        return ops.lookup(table, ids).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for n in (5, 9):
        ids = ids_of(n, 40, n)
        assert torch.equal(compiled(ids), loss(ids))
        compiled(ids).backward()
        want = torch.zeros(40, 33).index_add(0, ids, 2 * table.to_dense().detach()[ids])
        torch.testing.assert_close(table.values.grad, want[table.mask()])
        table.values.grad = None


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_the_gradient_of_16_bit_values_is_summed_in_float32(kind: str, dim: int, dtype: torch.dtype) -> None:
    small = random_table(kind, 61, dim, seed=dim, slack=3, dtype=dtype)
    ids = torch.randint(0, 61, (300,), generator=torch.Generator().manual_seed(dim))
    upstream = torch.randn(300, dim, generator=torch.Generator().manual_seed(3)).to(dtype)
    grads = []
    for values in (small.values, small.values.float()):
        leaf = values.detach().requires_grad_()
        table = PackedTable(61, dim, kind, small.index, small.cols, leaf)
        rows = ops.lookup(table, ids)
        assert rows.dtype == values.dtype
        rows.backward(upstream.to(values.dtype))
        grads.append(leaf.grad)
    assert same_bits(grads[0], grads[1].to(dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_read_and_gets_no_gradient(kind: str) -> None:
    grad = torch.randn(6, 33, generator=torch.Generator().manual_seed(0))
    ids, found = torch.tensor([4, 2, 4, 9, 2, 0]), []
    for backend in ("cpu", "reference"):
        table = random_table(kind, 10, 33, backend=backend)
        table.values.requires_grad_()
        rows = ops.lookup(table, ids, padding_idx=2)
        assert same_bits(rows, table.to_dense()[ids])
        rows.backward(grad)
        found.append(table.values.grad)
    want = torch.zeros(10, 33).index_add(0, ids, grad)
    want[2] = 0
    assert same_bits(found[0], want[table.mask()])
    assert torch.equal(*found)


def test_a_wrong_padding_row_is_named() -> None:
    with pytest.raises(ValueError, match=r"lookup: padding row is 10, expected -1 \(none\) or 0\.\.9"):
        ops.lookup(random_table("bits", 10, 33), torch.zeros(1, dtype=torch.int64), padding_idx=10)
