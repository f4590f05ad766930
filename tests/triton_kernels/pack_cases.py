"""What makes and inspects tables in Triton, bit-equal to the native ops: pack, unpack, convert_index, init, counts."""

from __future__ import annotations

import pytest
import torch
from strategies import DTYPES, KINDS, random_case, random_table, same_bits
from triton_tables import DEVICE, DIMS_OF_EVERY_BLOCK, assert_same_table, on_device, on_triton, pair

from recsparse import ops
from recsparse.ops.convert_index import fits
from recsparse.table import PackedTable


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS_OF_EVERY_BLOCK)
def test_pack_and_back(kind: str, dim: int) -> None:
    """Signed zeros, denormals, empty and full rows, rows that fill no whole block, and room for more weights."""
    dense, mask = random_case(kind, 61, dim, seed=dim, odd=True)
    capacity = int(mask.sum()) + (0 if kind == "full" else 5)
    native = PackedTable.from_dense(dense, mask, kind=kind, capacity=capacity)
    triton = PackedTable.from_dense(*on_device(dense, mask), kind=kind, capacity=capacity, backend="triton")
    assert_same_table(triton, native)
    found, found_mask = ops.unpack(triton)
    assert same_bits(found.cpu(), dense)
    assert torch.equal(found_mask.cpu(), mask)
    assert torch.equal(triton.row_counts().cpu(), mask.sum(1))
    for column in {0, dim // 2, dim - 1}:
        assert torch.equal(triton.column_mask(column).cpu(), mask[:, column])
    assert triton.nnz == native.nnz
    triton.check_invariants()


@pytest.mark.parametrize("dtype", [*DTYPES[1:], torch.float64])
def test_values_of_any_type(dtype: torch.dtype) -> None:
    dense, mask = random_case("bits", 40, 33, odd=True)
    dense = dense.to(dtype)
    want = ops.pack(dense, mask, "bits", int(mask.sum()))
    found = ops.pack(*on_device(dense, mask), "bits", int(mask.sum()), backend="triton")
    assert all(same_bits(a.cpu(), b) for a, b in zip(found, want, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", KINDS)
def test_convert_index(kind: str, to: str) -> None:
    for dim in (33, 256):
        source = "prefix" if to == "prefix" and kind in ("bits", "cols8") else kind
        native = random_table(source, 61, dim, slack=0 if kind == "full" or to == "full" else 3)
        if source != kind:
            native.convert_(kind)
        triton = on_triton(native)
        assert fits(triton, to) == fits(native, to)
        if not fits(native, to):
            with pytest.raises(ValueError, match=r"convert_index: row [0-9]+ does not keep .*; use kind bits or cols8"):
                triton.convert_(to)
            continue
        native.convert_(to)
        triton.convert_(to)
        assert_same_table(triton, native)


@pytest.mark.parametrize(
    ("kind", "start"),
    [("full", "full"), ("prefix", "prefix"), ("bits", "prefix"), ("bits", "bernoulli"), ("cols8", "bernoulli")],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_initial_tables(kind: str, start: str, dtype: torch.dtype) -> None:
    for rows, dim, seed, share in ((61, 33, 7, 3), (20, 225, -5, 1), (9, 1, 2**63 - 1, 2)):
        share = 1 if start == "full" else share
        options = {
            "kind": kind,
            "capacity": rows * dim // share,
            "start": start,
            "seed": seed,
            "std": 0.1,
            "dtype": dtype,
        }
        native = PackedTable.init(rows, dim, **options)
        assert_same_table(PackedTable.init(rows, dim, **options, backend="triton", device=DEVICE), native)


@pytest.mark.parametrize("capacity", [0, 1, 999, 1_000, 1_001, 1_320])
def test_prefixes_and_random_masks_of_every_size(capacity: int) -> None:
    for kind, start in (("prefix", "prefix"), ("bits", "bernoulli")):
        native = PackedTable.init(40, 33, kind=kind, capacity=capacity, start=start)
        triton = PackedTable.init(40, 33, kind=kind, capacity=capacity, start=start, backend="triton", device=DEVICE)
        assert_same_table(triton, native)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_rows(kind: str) -> None:
    table = PackedTable.from_dense(torch.empty(0, 33, device=DEVICE), kind=kind, backend="triton")
    assert table.to_dense().shape == (0, 33)
    assert table.row_counts().shape == (0,)


@pytest.mark.parametrize(
    ("kind", "capacity", "message"),
    [
        ("bits", 3, "pack: mask keeps 4 weights, more than capacity 3"),
        ("full", 9, "pack: row 0 does not keep every column; use kind bits or cols8"),
        ("prefix", 9, "pack: row 1 does not keep a prefix of its columns; use kind bits or cols8"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(kind: str, capacity: int, message: str) -> None:
    mask = torch.tensor([[True, True, False], [False, True, False], [True, False, False]], device=DEVICE)
    with pytest.raises(ValueError, match=message):
        ops.pack(torch.ones(3, 3, device=DEVICE), mask, kind, capacity, backend="triton")


def test_wrong_arguments_are_named() -> None:
    table = pair("bits", 10, 33)[1]
    with pytest.raises(ValueError, match="init_index_: kind full starts full; use kind bits or cols8"):
        PackedTable.init(10, 33, kind="full", capacity=330, start="prefix", backend="triton", device=DEVICE)
    with pytest.raises(ValueError, match="init_values_: std is nan, expected a finite number >= 0"):
        table.reset_values_(0, float("nan"))
    with pytest.raises(IndexError, match=r"column_mask: column is 33, expected 0\.\.32"):
        table.column_mask(33)
