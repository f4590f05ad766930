"""pack and unpack: bit for bit, every kind and width, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DIMS, KINDS, dims, kinds, random_case, random_mask, random_table, row_numbers, same_bits, seeds
from torch import Tensor

from recsparse import layout, ops, reference
from recsparse.table import PackedTable

# Enough rows for several of the chunks that two threads share, in every kind.
LARGE = {"full": (20_000, 16), "prefix": (130_000, 7), "bits": (20_000, 64), "cols8": (130_000, 7)}


@given(kinds, dims, row_numbers, seeds, st.integers(0, 20), st.sampled_from([torch.float32, torch.float64]))
def test_round_trip_is_bit_exact(kind: str, dim: int, rows: int, seed: int, slack: int, dtype: torch.dtype) -> None:
    dense, mask = random_case(kind, rows, dim, seed=seed, odd=True)
    dense = dense.to(dtype)
    capacity = int(mask.sum()) + (0 if kind == "full" else slack)
    index, cols, values = ops.pack(dense, mask, kind, capacity)
    back, back_mask = torch.ops.recsparse.unpack(index, cols, values, layout.KINDS[kind], rows, dim)
    assert same_bits(back, dense)
    assert torch.equal(back_mask, mask)
    nnz = int(mask.sum())
    assert same_bits(values[:nnz], dense[mask]), "kept weights lie row by row, columns ascending"
    assert same_bits(values[nnz:], torch.zeros(capacity - nnz, dtype=dtype))
    if kind == "cols8":
        assert torch.equal(cols[:nnz].long(), mask.nonzero()[:, 1])
        assert not cols[nnz:].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_an_independent_decoder_reads_the_same(kind: str, dim: int) -> None:
    table = random_table(kind, 61, dim, seed=dim, slack=5)
    dense, mask = reference.unpack(table.index, table.cols, table.values, *table.layout)
    assert same_bits(table.to_dense(), dense)
    assert torch.equal(table.mask(), mask)


def test_values_under_the_mask_alone_are_read() -> None:
    mask = torch.tensor([[True, False], [False, True]])
    dense = torch.tensor([[1.0, float("nan")], [float("inf"), 2.0]])
    table = PackedTable.from_dense(dense, mask)
    assert torch.equal(table.to_dense(), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_byte_is_written(kind: str, poison: None) -> None:
    rows, dim = LARGE[kind][0] // 7 + 3, LARGE[kind][1]
    dense, mask = random_case(kind, rows, dim, seed=4)
    table = PackedTable.from_dense(dense, mask, kind=kind, capacity=int(mask.sum()) + (0 if kind == "full" else 9))
    table.check_invariants()
    assert same_bits(table.to_dense(), dense)
    assert torch.equal(table.mask(), mask)
    again = PackedTable.from_dense(dense, mask, kind=kind, capacity=table.capacity)
    assert all(torch.equal(a, b) for a, b in zip(table.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_for_any_thread_count(kind: str, threads: int) -> None:
    rows, dim = LARGE[kind]
    dense, mask = random_case(kind, rows, dim, seed=1)
    table = PackedTable.from_dense(dense, mask, kind=kind)
    table.check_invariants()
    assert same_bits(table.values, dense[mask])
    assert same_bits(table.to_dense(), dense)
    assert torch.equal(table.mask(), mask)
    assert torch.equal(table.row_counts(), mask.sum(1))


def faulty_row(kind: str, rows: int, at: int) -> Tensor:
    mask = random_mask(kind, rows, 70, torch.Generator().manual_seed(0))
    mask[at:] = torch.rand(rows - at, 70) < 0.5
    mask[at] = False
    mask[at, 69] = True
    return mask


@pytest.mark.parametrize(("kind", "what"), [("full", "every column"), ("prefix", "a prefix of its columns")])
@pytest.mark.parametrize("at", [0, 63, 9_999])
def test_a_mask_that_the_kind_cannot_hold_names_the_first_row(kind: str, what: str, at: int, threads: int) -> None:
    mask = faulty_row(kind, 10_000, at)
    with pytest.raises(ValueError, match=rf"pack: row {at} does not keep {what}; use kind bits or cols8"):
        ops.pack(torch.zeros(mask.shape), mask, kind, mask.numel())


@pytest.mark.parametrize("hole", [0, 1, 63, 64, 127, 128, 254])
def test_a_prefix_with_one_hole_is_refused(hole: int) -> None:
    mask = torch.ones(3, 256, dtype=torch.bool)
    mask[1, hole] = False
    with pytest.raises(ValueError, match="row 1 does not keep a prefix"):
        ops.pack(torch.zeros(3, 256), mask, "prefix", 768)


@pytest.mark.parametrize("kind", KINDS)
def test_one_weight_more_than_capacity_is_refused(kind: str) -> None:
    dense, mask = random_case(kind, 40, 33)
    kept = int(mask.sum())
    with pytest.raises(ValueError, match=rf"pack: mask keeps {kept} weights, more than capacity {kept - 1}"):
        ops.pack(dense, mask, kind, kept - 1)


@pytest.mark.parametrize(
    ("dense", "mask", "kind", "capacity", "error", "message"),
    [
        (torch.zeros(4, 5).int(), torch.ones(4, 5).bool(), "bits", 20, TypeError, "dense has dtype Int"),
        (torch.zeros(4, 5), torch.ones(4, 5), "bits", 20, TypeError, "mask has dtype Float, expected Bool"),
        (torch.zeros(4, 5), torch.ones(4, 6).bool(), "bits", 20, ValueError, "mask has shape [4, 6], expected [4, 5]"),
        (torch.zeros(20), torch.ones(20).bool(), "bits", 20, ValueError, "dense has shape [20], expected [rows, dim]"),
        (torch.zeros(5, 4).T, torch.ones(4, 5).bool(), "bits", 20, ValueError, "dense is not contiguous"),
        (torch.zeros(4, 5), torch.ones(5, 4).bool().T, "bits", 20, ValueError, "mask is not contiguous"),
        (torch.zeros(4, 5), torch.ones(4, 5).bool(), "bits", -1, ValueError, "capacity is -1, expected at least 0"),
        (torch.zeros(4, 257), torch.ones(4, 257).bool(), "bits", 2000, ValueError, "dim is 257, expected 1..256"),
        (torch.zeros(4, 0), torch.ones(4, 0).bool(), "bits", 0, ValueError, "dim is 0, expected 1..256"),
        (torch.zeros(4, 5), torch.ones(4, 5).bool(), "csr", 20, ValueError, "index kind is 'csr'"),
    ],
)
def test_a_wrong_argument_is_named(
    dense: Tensor, mask: Tensor, kind: str, capacity: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        ops.pack(dense, mask, kind, capacity)
    assert message in str(caught.value)
    assert len(str(caught.value).strip().splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(kind: str) -> None:
    dense, mask = random_case(kind, 40, 33)
    code, capacity = layout.KINDS[kind], int(mask.sum())
    torch.library.opcheck(torch.ops.recsparse.pack, (dense, mask, code, capacity))
    torch.library.opcheck(torch.ops.recsparse.unpack, (*ops.pack(dense, mask, kind, capacity), code, 40, 33))
