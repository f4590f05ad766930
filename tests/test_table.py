"""PackedTable: construction, CSR, byte counts, state and what damage does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DIMS, KINDS, dims, kinds, random_case, random_table, row_numbers, same_bits, seeds
from torch import Tensor

from recsparse import InvariantError, layout, ops, reference
from recsparse.table import PackedTable


@given(kinds, dims, row_numbers, seeds, st.integers(0, 9))
def test_counts_and_sizes(kind: str, dim: int, rows: int, seed: int, slack: int) -> None:
    dense, mask = random_case(kind, rows, dim, seed=seed)
    slack = 0 if kind == "full" else slack
    table = PackedTable.from_dense(dense, mask, kind=kind, capacity=int(mask.sum()) + slack)
    assert table.nnz == int(mask.sum())
    assert table.capacity == table.nnz + slack
    assert torch.equal(table.row_counts(), mask.sum(1))
    assert table.density == pytest.approx(mask.float().mean().item() if rows else 0)
    assert f"rows={rows}, dim={dim}, kind={kind!r}, nnz={table.nnz}, capacity={table.capacity}" in repr(table)
    table.check_invariants()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_from_dense_refuses_what_is_not_finite(kind: str, bad: float) -> None:
    dense, mask = random_case(kind, 9, 33)
    mask[5, 0], dense[5, 0] = True, bad
    with pytest.raises(ValueError, match=rf"from_dense: dense\[5, 0\] is {bad}, expected finite weights"):
        PackedTable.from_dense(dense, mask, kind=kind)


def test_from_dense_without_a_mask_keeps_what_is_not_zero() -> None:
    dense = torch.tensor([[0.0, 1.0, -0.0], [2.0, 0.0, 1e-45]])
    table = PackedTable.from_dense(dense)
    assert table.kind == "bits"
    assert table.mask().tolist() == [[False, True, False], [True, False, True]]


def test_a_full_table_has_no_spare_room() -> None:
    with pytest.raises(ValueError, match="values has 7 entries, expected rows \\* dim = 6 for kind full"):
        PackedTable.from_dense(torch.ones(2, 3), kind="full", capacity=7)


def csr(dense: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    crow = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    return crow, mask.nonzero()[:, 1], dense[mask]


@given(kinds, dims, row_numbers, seeds)
def test_csr_round_trip(kind: str, dim: int, rows: int, seed: int) -> None:
    dense, mask = random_case(kind, rows, dim, seed=seed, odd=True)
    table = PackedTable.from_csr(*csr(dense, mask), dim, kind=kind, capacity=int(mask.sum()) + 3 * (kind != "full"))
    assert same_bits(table.to_dense(), dense)
    assert all(same_bits(a, b) for a, b in zip(table.to_csr(), csr(dense, mask), strict=True))


@pytest.mark.parametrize(
    ("crow", "col", "n", "message"),
    [
        ([1, 2, 3], [0, 1, 2], 3, "crow must ascend from 0"),
        ([0, 2, 1, 3], [0, 1, 2], 3, "crow must ascend from 0"),
        ([0, 1, 2], [0, 1, 2], 3, "crow must ascend from 0"),
        ([0, 1, 4], [0, 1, 2], 3, "crow must ascend from 0"),
        ([0, 1, 3], [0, 1, 2], 2, "crow must ascend from 0"),
        ([], [], 0, "crow must ascend from 0"),
        ([0, 1, 3], [0, 1, 5], 3, "columns must lie in 0..4"),
        ([0, 1, 3], [0, -1, 2], 3, "columns must lie in 0..4"),
        ([0, 1, 3], [0, 2, 1], 3, "columns must ascend within each row"),
        ([0, 1, 3], [0, 2, 2], 3, "columns must ascend within each row"),
    ],
)
def test_bad_csr_is_refused(crow: list[int], col: list[int], n: int, message: str) -> None:
    parts = torch.tensor(crow, dtype=torch.int64), torch.tensor(col, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"from_csr: {message}"):
        PackedTable.from_csr(*parts, torch.ones(n), 5)


@given(dims, row_numbers, seeds)
def test_sizes_make_the_table_of_a_prefix_mask(dim: int, rows: int, seed: int) -> None:
    sizes = torch.randint(0, dim + 1, (rows,), generator=torch.Generator().manual_seed(seed))
    sizes[: rows // 3] = dim  # the largest that a length has to hold
    table = PackedTable.from_sizes(sizes, dim)
    mask = torch.arange(dim) < sizes[:, None]
    expected = PackedTable.from_dense(torch.zeros(rows, dim), mask, kind="prefix")
    assert torch.equal(table.index, expected.index)
    assert table.capacity == table.nnz == int(sizes.sum())
    assert torch.equal(table.row_counts(), sizes)
    assert not bool(table.values.any())
    table.check_invariants()


def test_impossible_sizes_are_refused() -> None:
    for sizes, dim in (([3, 9], 8), ([-1, 2], 8)):
        with pytest.raises(ValueError, match=r"from_sizes: sizes must be a vector of 0\.\.dim = 8"):
            PackedTable.from_sizes(torch.tensor(sizes), dim)
    with pytest.raises(ValueError, match=r"from_sizes: dim is 257, expected 1\.\.256"):
        PackedTable.from_sizes(torch.tensor([3]), 257)
    assert PackedTable.from_sizes(torch.tensor([2]), 4, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_state_goes_into_a_table_of_the_same_shape(kind: str) -> None:
    dense, mask = random_case(kind, 60, 33, seed=1)
    table = PackedTable.from_dense(dense, mask, kind=kind, capacity=int(mask.sum()))
    other = PackedTable.from_dense(2 * dense, mask, kind=kind, capacity=table.capacity)
    addresses = [tensor.data_ptr() for tensor in other.state_dict().values()]
    other.load_state_dict({name: tensor.clone() for name, tensor in table.state_dict().items()})
    assert same_bits(other.to_dense(), dense)
    assert [tensor.data_ptr() for tensor in other.state_dict().values()] == addresses


@pytest.mark.parametrize("name", ["index", "cols", "values"])
def test_state_of_another_shape_is_refused_and_changes_nothing(name: str) -> None:
    table = random_table("cols8", 60, 33, seed=1)
    before = table.to_dense()
    state = {key: torch.zeros_like(tensor) for key, tensor in table.state_dict().items()}
    for wrong in (state[name][:-1], state[name].double(), None):
        with pytest.raises(ValueError, match=f"table {name}: found .*, expected {state[name].dtype}"):
            table.load_state_dict({**state, name: wrong})
        assert torch.equal(table.to_dense(), before)


def damage(table: PackedTable, name: str, at: int, value: int | float) -> None:
    table.state_dict()[name][at] = value


@pytest.mark.parametrize(
    ("kind", "dim", "name", "at", "value", "message"),
    [
        ("bits", 64, "index", 0, 1, "index block 0 does not start at 0"),
        ("bits", 64, "index", 16, -1, "index block 2 does not start where the one before it ends"),
        ("cols8", 64, "index", 8, 2**40, "index block 1 does not start where the one before it ends"),
        ("bits", 33, "index", 1, -1, "row 0 keeps columns beyond dim = 33"),
        ("prefix", 64, "index", 1, 65, "row 0 keeps columns beyond dim = 64"),
        ("prefix", 256, "index", 1, 257, "row 0 keeps columns beyond dim = 256"),
        ("cols8", 64, "cols", -1, 64, "the columns of row 99 do not ascend within 0..64"),
        ("cols8", 64, "cols", 1, 0, "the columns of row 0 do not ascend within 0..64"),
        ("bits", 64, "values", 3, float("nan"), "weight 3 of the table is nan, expected a finite number"),
        ("full", 64, "values", 6399, float("inf"), "weight 6399 of the table is inf, expected a finite number"),
    ],
)
def test_planted_damage_is_named(kind: str, dim: int, name: str, at: int, value: float, message: str) -> None:
    table = random_table(kind, 100, dim, density=0.3)
    damaged = random_table(kind, 100, dim, density=0.3)
    damage(damaged, name, at, value)
    with pytest.raises(InvariantError) as caught:
        damaged.check_invariants()
    assert str(caught.value) == message
    with pytest.raises(InvariantError, match=message[:30]):
        table.load_state_dict(damaged.state_dict())


def test_weights_behind_the_kept_ones_are_named() -> None:
    table = random_table("bits", 100, 64, slack=2)
    table.values[-1] = 1.0
    with pytest.raises(InvariantError, match="values behind the kept weights are not zero"):
        table.check_invariants()


def test_more_weights_than_room_is_named() -> None:
    table = random_table("prefix", 100, 64, density=0.3)
    table.values = table.values[:-1].clone()
    message = f"{table.nnz} weights are kept, more than capacity {table.capacity}"
    with pytest.raises(InvariantError, match=message):
        table.check_invariants()


@given(
    st.sampled_from(["prefix", "bits", "cols8"]),
    st.sampled_from(DIMS),
    st.integers(1, 120),
    seeds,
    st.lists(st.tuples(st.integers(0, 2**31), st.integers(1, 255)), min_size=1, max_size=3),
)
def test_flipped_bits_are_found_or_leave_a_valid_table(
    kind: str, dim: int, rows: int, seed: int, flips: list[tuple[int, int]]
) -> None:
    table = random_table(kind, rows, dim, seed=seed, slack=5)
    raw = table.index.view(torch.uint8)
    for at, bits in flips:
        raw[at % raw.numel()] ^= bits
    if torch.ops.recsparse.check_index(table.index, table.cols, table.capacity, *table.layout):
        return
    counts = table.row_counts()
    assert int(counts.sum()) == table.nnz <= table.capacity
    dense, mask = reference.unpack(table.index, table.cols, table.values, *table.layout)
    assert torch.equal(counts, mask.sum(1))
    assert same_bits(ops.lookup(table, torch.arange(rows)), dense)


@given(st.sampled_from(["prefix", "bits", "cols8"]), st.sampled_from(DIMS), st.integers(2, 120), seeds)
def test_random_bytes_are_no_table(kind: str, dim: int, rows: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    index = torch.randint(-(2**63), 2**63 - 1, random_table(kind, rows, dim).index.shape, generator=rng)
    cols = torch.zeros(50 if kind == "cols8" else 0, dtype=torch.uint8)
    for first in (int(index[0]), 0):
        index[0] = first
        assert torch.ops.recsparse.check_index(index, cols, 50, layout.KINDS[kind], rows, dim)


@given(st.sampled_from(DIMS), st.integers(1, 120), seeds, st.integers(0, 2**31), st.integers(1, 255))
def test_flipped_column_bits_are_found_or_leave_a_valid_table(
    dim: int, rows: int, seed: int, at: int, bits: int
) -> None:
    table = random_table("cols8", rows, dim, seed=seed, density=0.4)
    if not table.nnz:
        return
    table.cols[at % table.nnz] ^= bits
    if torch.ops.recsparse.check_index(table.index, table.cols, table.capacity, *table.layout):
        return
    again = PackedTable.from_dense(table.to_dense(), table.mask(), kind="cols8")
    assert torch.equal(again.cols, table.cols)
    assert torch.equal(again.index, table.index)


def test_check_index_is_the_same_for_any_thread_count(threads: int) -> None:
    """The first fault is named, also when another thread finds a later one before."""
    table = random_table("bits", 20_000, 33, density=0.3)
    blocks = -(-20_000 // layout.rows_per_block("bits", 33))
    for block in (2_500, 1_700):
        table.index[block * (table.index.numel() // blocks)] += 1
    message = torch.ops.recsparse.check_index(table.index, table.cols, table.capacity, *table.layout)
    assert message == "index block 1700 does not start where the one before it ends"


@pytest.mark.parametrize("kind", KINDS)
def test_empty_tables(kind: str) -> None:
    table = PackedTable.from_dense(torch.empty(0, 7), kind=kind, capacity=0 if kind == "full" else 3)
    assert (table.nnz, table.density) == (0, 0)
    assert table.to_dense().shape == (0, 7)
    table.check_invariants()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_tables_round_to_nearest_and_report_their_bytes(kind: str, dtype: torch.dtype) -> None:
    dense, mask = random_case(kind, 61, 100)
    table = PackedTable.from_dense(dense, mask, kind=kind, dtype=dtype)
    assert table.dtype == dtype
    assert same_bits(table.to_dense(), dense.to(dtype))
    assert table.nbytes()["total"] == layout.stored_nbytes(kind, 61, 100, table.capacity, 2)
    again = PackedTable.from_csr(*table.to_csr(), 100, kind="cols8")
    assert same_bits(again.to_dense(), table.to_dense())
    start = {"full": "full", "prefix": "prefix"}.get(kind, "bernoulli")
    capacity = 6_100 if kind == "full" else 2_000
    made, wide = (
        PackedTable.init(61, 100, kind=kind, capacity=capacity, start=start, seed=3, dtype=each)
        for each in (dtype, torch.float32)
    )
    assert same_bits(made.values, wide.values.to(dtype))
    made.check_invariants()


def test_a_dtype_that_values_cannot_have_is_named() -> None:
    with pytest.raises(TypeError, match=r"values has dtype torch\.float64, expected one of torch\.float32"):
        PackedTable.from_dense(torch.ones(3, 4).double())
    with pytest.raises(ValueError, match=r"dense\[0, 0\] is inf, expected finite weights"):
        PackedTable.from_dense(torch.full((3, 4), 7e4), dtype=torch.float16)
