"""convert_index: every pair of kinds, against packing the mask anew and against the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from strategies import DIMS, KINDS, dims, kinds, random_case, random_table, row_numbers, same_bits, seeds

from recsparse import layout, ops, reference
from recsparse.optim import Adam
from recsparse.table import PackedTable

ANY = ("bits", "cols8")  # the kinds that hold any mask


def arguments(table: PackedTable, kind: str) -> tuple:
    return (table.index, table.cols, table.capacity, *table.layout, layout.KINDS[kind])


@given(kinds, kinds, dims, row_numbers, seeds)
def test_equals_packing_the_mask_anew(start: str, kind: str, dim: int, rows: int, seed: int) -> None:
    dense, mask = random_case(start, rows, dim, seed=seed)
    capacity = int(mask.sum()) + (0 if start == "full" else 7)
    table = PackedTable.from_dense(dense, mask, kind=start, capacity=capacity)
    values, address = table.values.clone(), table.values.data_ptr()
    try:
        expected = PackedTable.from_dense(dense, mask, kind=kind, capacity=capacity)
    except ValueError:
        with pytest.raises(ValueError, match=r"convert_index: (row \d+ does not keep|capacity is)"):
            table.convert_(kind)
        assert table.kind == start
        return
    table.convert_(kind)
    assert table.kind == kind
    assert torch.equal(table.index, expected.index)
    assert torch.equal(table.cols, expected.cols)
    assert table.values.data_ptr() == address
    assert same_bits(table.values, values)
    table.check_invariants()


@pytest.mark.parametrize("start", KINDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_equals_the_reference(start: str, kind: str, dim: int) -> None:
    table = random_table(start, 61, dim, seed=dim)
    if not ops.fits(table, kind):
        with pytest.raises(ValueError, match=r"row|capacity"):
            ops.convert_index(table, kind)
        return
    index, cols = ops.convert_index(table, kind)
    expected_index, expected_cols = reference.convert_index(*arguments(table, kind))
    assert torch.equal(index, expected_index)
    assert torch.equal(cols, expected_cols)


@pytest.mark.parametrize("start", ANY)
def test_names_the_first_row_that_does_not_fit(start: str) -> None:
    mask = torch.ones(5000, 40, dtype=torch.bool)
    mask[3000:, 7] = False
    table = PackedTable.from_dense(torch.ones(5000, 40), mask, kind=start, capacity=5000 * 40)
    for kind in ("prefix", "full"):
        with pytest.raises(ValueError, match="row 3000 does not keep"):
            table.convert_(kind)
        assert not ops.fits(table, kind)
    table.check_invariants()


def test_training_goes_on_with_the_same_state() -> None:
    one, other = (random_table("bits", 90, 48, seed=3, density=0.2) for _ in range(2))
    triples = tuple(torch.randint(0, 40, (300,), generator=torch.Generator().manual_seed(n)) for n in range(3))
    optimizers = Adam(one), Adam(other)
    for table, optimizer in zip((one, other), optimizers, strict=True):
        for _ in range(3):
            ops.bpr_step_(table, optimizer, *triples, item_offset=45, batch_size=100)
            if table is other:
                table.convert_("cols8" if table.kind == "bits" else "bits")
    assert torch.equal(one.to_dense(), other.to_dense())
    assert torch.equal(optimizers[0].moments, optimizers[1].moments)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits_for_any_number_of_threads(threads: int) -> None:
    table = random_table("bits", 130_000, 7, seed=1)
    expected = ops.convert_index(table, "cols8")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert all(torch.equal(a, b) for a, b in zip(ops.convert_index(table, "cols8"), expected, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("density", "start", "kind"), [(0.05, "bits", "cols8"), (0.3, "cols8", "bits"), (0.3, "prefix", "prefix")]
)
def test_the_cheapest_kind(density: float, start: str, kind: str) -> None:
    table = random_table(start, 4000, 64, density=density)
    dense, mask = table.to_dense(), table.mask()
    assert table.cheapest_kind() == kind
    sizes = {}
    for other in KINDS:
        if ops.fits(table, other):
            table.convert_(other)
            sizes[other] = table.nbytes()["total"]
    table.convert_("cheapest")
    assert table.kind == kind == min(sizes, key=lambda name: sizes[name])
    assert PackedTable.from_dense(dense, mask, kind="cheapest").kind == kind
    assert torch.equal(table.to_dense(), dense)


def test_a_full_table_needs_no_index() -> None:
    table = PackedTable.from_dense(torch.ones(9, 5), kind="bits")
    table.convert_("cheapest")
    assert (table.kind, table.index.numel()) == ("full", 0)


@pytest.mark.parametrize("start", KINDS)
def test_opcheck(start: str) -> None:
    table = random_table(start, 30, 33, seed=5)
    for kind in KINDS:
        if ops.fits(table, kind):
            torch.library.opcheck(torch.ops.recsparse.convert_index.default, arguments(table, kind))
