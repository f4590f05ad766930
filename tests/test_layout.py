"""`recsparse.layout` against the native layout and against tensors that exist."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DIMS, KINDS, dims, kinds, random_table, row_numbers, seeds

from recsparse import _native, layout

_native.load()


def native_index_nbytes(kind: str, rows: int, dim: int) -> int:
    return 8 * torch.ops.recsparse.index_words(layout.kind_code(kind), rows, dim)


@pytest.mark.parametrize("kind", KINDS)
def test_index_bytes_are_the_native_ones_for_every_dim(kind: str) -> None:
    for dim in range(1, layout.MAX_DIM + 1):
        for rows in (0, 1, 6, 7, 8, 27, 28, 29, 55, 56, 57, 1000, 10**9, 2**40 - 1):
            assert layout.index_nbytes(kind, rows, dim) == native_index_nbytes(kind, rows, dim), (dim, rows)


def test_index_bytes_by_hand() -> None:
    # d = 64: seven rows of 8 mask bytes and a base of 8 bytes fill a cache line; 56 length bytes and a base do, too.
    assert layout.index_nbytes("bits", 7, 64) == 64
    assert layout.index_nbytes("bits", 8, 64) == 128
    assert layout.index_nbytes("prefix", 56, 64) == 64
    assert layout.index_nbytes("cols8", 57, 64) == 128
    assert layout.index_nbytes("prefix", 29, 256) == 128
    assert layout.index_nbytes("full", 10**9, 64) == 0


def test_bytes_of_a_table_beyond_32_bits() -> None:
    rows, dim, nnz = 10**9, 64, 64 * 10**8
    assert layout.stored_nbytes("full", rows, dim, rows * dim) == 256 * 10**9
    assert layout.stored_nbytes("bits", rows, dim, nnz) == 64 * 142857143 + 4 * nnz
    assert layout.stored_nbytes("cols8", rows, dim, nnz) == 64 * 17857143 + 5 * nnz
    assert layout.stored_nbytes("prefix", rows, dim, nnz, value_bytes=2) == 64 * 17857143 + 2 * nnz
    assert layout.capacity_for_nbytes("bits", rows, dim, 10**11) == (10**11 - 64 * 142857143) // 4


@given(kinds, dims, row_numbers, seeds, st.integers(0, 50))
def test_stored_bytes_are_those_of_the_tensors(kind: str, dim: int, rows: int, seed: int, slack: int) -> None:
    table = random_table(kind, rows, dim, seed=seed, slack=slack)
    stored = sum(tensor.nbytes for tensor in table.state_dict().values())
    assert table.nbytes()["total"] == stored == layout.stored_nbytes(kind, rows, dim, table.capacity)
    assert table.nbytes()["values"] + table.nbytes()["index"] == stored
    assert table.nbytes()["index"] == layout.index_nbytes(kind, rows, dim) + table.cols.nbytes


@given(kinds, st.integers(1, 256), st.integers(0, 10**10), st.integers(0, 10**13), st.sampled_from([2, 4]))
def test_capacity_is_the_largest_that_fits(kind: str, dim: int, rows: int, nbytes: int, value_bytes: int) -> None:
    capacity = layout.capacity_for_nbytes(kind, rows, dim, nbytes, value_bytes)
    slots = rows * dim
    if capacity < 0:
        smallest = slots if kind == "full" else 0
        assert layout.stored_nbytes(kind, rows, dim, smallest, value_bytes) > nbytes
        return
    assert layout.stored_nbytes(kind, rows, dim, capacity, value_bytes) <= nbytes
    if kind == "full" or capacity == slots:
        assert capacity == slots
    else:
        assert layout.stored_nbytes(kind, rows, dim, capacity + 1, value_bytes) > nbytes


@given(kinds, dims, st.integers(0, 10**7), st.integers(0, 10**9))
def test_a_budget_of_exactly_the_stored_bytes_gives_the_capacity_back(kind: str, dim: int, rows: int, nnz: int) -> None:
    nnz = rows * dim if kind == "full" else min(nnz, rows * dim)
    nbytes = layout.stored_nbytes(kind, rows, dim, nnz)
    assert layout.capacity_for_nbytes(kind, rows, dim, nbytes) == nnz
    if nnz:
        assert layout.capacity_for_nbytes(kind, rows, dim, nbytes - 1) == (-1 if kind == "full" else nnz - 1)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"index kind is 'csr', expected one of full, prefix, bits, cols8"):
        layout.index_nbytes("csr", 1, 1)


@pytest.mark.parametrize("dim", DIMS)
def test_rows_per_block_fill_a_whole_number_of_blocks(dim: int) -> None:
    for kind in ("prefix", "bits", "cols8"):
        per_block = layout.rows_per_block(kind, dim)
        block = native_index_nbytes(kind, 1, dim)
        assert native_index_nbytes(kind, 10 * per_block, dim) == 10 * block
        assert native_index_nbytes(kind, 10 * per_block + 1, dim) == 11 * block
