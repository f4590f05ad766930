"""Offsets, row ids and slot keys beyond 2^31: each op on a table whose end is far must do what it does on a near one.

A far table is the near one with 2^31 and a few values in front, made by shifting the bases of its index blocks. What
lies in front is never touched, so the pages of those gigabytes are never mapped, but for ops that pass over everything.
"""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from interactions import random_interactions
from strategies import random_table, random_triples, same_bits
from torch import Tensor

from recsparse import layout, ops
from recsparse.graph import Graph
from recsparse.optim import SGD, Adam, RowWiseAdagrad
from recsparse.table import PackedTable

SHIFT = 2**31 + 77
USERS, ITEMS, DIM = 40, 50, 48
ROWS = USERS + ITEMS


@pytest.fixture
def alone() -> Iterator[None]:
    """Not at the same time as another test process with such a test: each maps up to ten gigabytes."""
    with (Path(tempfile.gettempdir()) / "recsparse-far-offsets.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def untouched(count: int, dtype: torch.dtype) -> Tensor:
    """Zeros whose pages the system maps when they are first touched."""
    kinds = {torch.float16: np.float16, torch.float32: np.float32, torch.uint8: np.uint8, torch.int64: np.int64}
    try:
        return torch.from_numpy(np.zeros(count, dtype=kinds[dtype]))
    except MemoryError:
        pytest.skip(f"the system refuses {count} values of {dtype} of address space")


def base_words(kind: str, dim: int) -> int:
    """64-bit words from the base of one index block to the next."""
    rows = layout.rows_per_block(kind, dim)
    return layout.index_nbytes(kind, rows, dim) // 8


def far_twin(near: PackedTable) -> PackedTable:
    """`near` with SHIFT values in front of its first one."""
    index = near.index.clone()
    index[:: base_words(near.kind, near.dim)] += SHIFT
    values = untouched(SHIFT + near.capacity, near.dtype)
    values[SHIFT:] = near.values
    cols = near.cols
    if near.kind == "cols8":
        cols = untouched(SHIFT + near.capacity, torch.uint8)
        cols[SHIFT:] = near.cols
    return PackedTable(near.rows, near.dim, near.kind, index, cols, values)


def twins(kind: str, dtype: torch.dtype = torch.float16) -> tuple[PackedTable, PackedTable]:
    near = random_table(kind, ROWS, DIM, seed=3, scale=0.3, dtype=dtype)
    return near, far_twin(near)


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
def test_lookups(kind: str, threads: int) -> None:
    near, far = twins(kind)
    ids = torch.randint(ROWS, (500,), generator=torch.Generator().manual_seed(1))
    assert far.nnz == near.nnz + SHIFT
    assert same_bits(far.lookup(ids), near.lookup(ids))
    offsets = torch.arange(0, 500, 5)
    assert same_bits(ops.lookup_bag(far, ids, offsets), ops.lookup_bag(near, ids, offsets))


@pytest.mark.usefixtures("alone")
def test_gradients_of_far_values() -> None:
    near, far = twins("bits")
    ids = torch.randint(ROWS, (300,), generator=torch.Generator().manual_seed(1))
    gradients = []
    for table in (near, far):
        values = table.values.requires_grad_()
        ops.lookup(table, ids).float().square().sum().backward()
        assert values.grad is not None
        gradients.append(values.grad[-near.capacity :])
    assert bool(gradients[0].any())
    assert same_bits(*gradients)


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
@pytest.mark.parametrize("make", [SGD, RowWiseAdagrad], ids=lambda make: make.__name__)
def test_steps(kind: str, make: type[SGD | RowWiseAdagrad], threads: int) -> None:
    triples = random_triples(200, USERS, ITEMS, seed=2)
    ids = triples[0]
    gradient = torch.randn(len(ids), DIM, generator=torch.Generator().manual_seed(2))
    tables = twins(kind, torch.float32)
    before = tables[0].values.clone()
    for table in tables:
        optimizer = make(table, lr=0.1)
        ops.bpr_step_(table, optimizer, *triples, item_offset=USERS, batch_size=64, l2=0.01)
        optimizer.update_rows(ids, gradient)
    near, far = tables
    assert not torch.equal(near.values, before)
    assert same_bits(far.values[SHIFT:], near.values)


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
def test_lightgcn_and_ranking(kind: str, threads: int) -> None:
    graph = Graph.from_interactions(random_interactions(USERS, ITEMS, 0.2), ITEMS)
    triples = random_triples(200, USERS, ITEMS, seed=2)
    nothing = torch.zeros(USERS + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    near, far = twins(kind, torch.float32)
    before, found = near.values.clone(), []
    for table in (near, far):
        ops.lightgcn_step_(table, SGD(table, lr=0.1), graph, *triples, layers=2, batch_size=64)
        scores = ops.lightgcn_grow_scores(table, graph, *triples, layers=2, limit=100)
        found.append((*scores, *ops.rank_packed(table, torch.arange(USERS), *nothing, 10, item_offset=USERS)))
    assert not torch.equal(near.values, before)
    assert same_bits(far.values[SHIFT:], near.values)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.usefixtures("alone")
def test_adam_whose_moments_are_far(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moment 2 * SHIFT is beyond 2^32."""
    monkeypatch.setattr("recsparse.optim.state._zeros", lambda count, device: untouched(count, torch.float32))
    near, far = twins("bits")
    triples = random_triples(200, USERS, ITEMS, seed=2)
    gradient = torch.randn(200, DIM, generator=torch.Generator().manual_seed(2))
    states = []
    for table in (near, far):
        optimizer = Adam(table, lr=0.1)
        ops.bpr_step_(table, optimizer, *triples, item_offset=USERS, batch_size=64, l2=0.01)
        optimizer.update_rows(triples[0], gradient)
        states.append(optimizer.state[-2 * near.capacity :])
    assert same_bits(far.values[SHIFT:], near.values)
    assert same_bits(states[0], states[1])


FRONT = 2**31 // DIM + 5  # rows, so that slot keys pass 2^31


def behind_empty_rows(near: PackedTable) -> PackedTable:
    """`near` (of kind `bits`) with FRONT empty rows before its first one."""
    rows = layout.rows_per_block("bits", DIM)
    front = -(-FRONT // rows) * rows  # the blocks of `near` stay whole
    words = base_words("bits", DIM)
    index = torch.cat([untouched(front // rows * words, torch.int64), near.index])
    return PackedTable(front + near.rows, DIM, "bits", index, near.cols, near.values.clone())


def test_slot_keys(threads: int) -> None:
    """Growth, pruning and rebuilding of a table of more than 2^31 slots."""
    near = random_table("bits", ROWS, DIM, seed=3, scale=0.3)
    far = behind_empty_rows(near)
    front = far.rows - near.rows
    triples = random_triples(200, USERS, ITEMS, seed=2)
    keys, scores = ops.bpr_grow_scores(near, *triples, item_offset=USERS, limit=300)
    far_keys, far_scores = ops.bpr_grow_scores(
        far, triples[0] + front, triples[1], triples[2], item_offset=front + USERS, limit=300
    )
    assert int(far_keys[0]) > 2**31
    assert torch.equal(far_keys - front * DIM, keys)
    assert same_bits(far_scores, scores)
    states = [torch.rand(2 * near.capacity, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    for table, state, candidates in ((near, states[0], keys), (far, states[1], far_keys)):
        assert ops.prune_regrow_(table, state, candidates, scores, drop=120, grow=120) == (120, 120)
    assert same_bits(far.values, near.values)
    assert same_bits(states[0], states[1])
    far.check_invariants()
    ids = torch.arange(ROWS)
    assert same_bits(far.lookup(ids + front), near.lookup(ids))
    far.convert_("cols8")
    assert same_bits(far.lookup(ids + front), near.lookup(ids))


@pytest.mark.parametrize("kind", ["prefix", "bits"])
def test_row_ids(kind: str, threads: int) -> None:
    """More than 2^31 rows, of which only the last few keep weights."""
    dim = 4
    near = random_table(kind, ROWS, dim, seed=3, scale=0.3)
    rows = layout.rows_per_block(kind, dim)
    front = -(-(2**31) // rows) * rows
    index = untouched((front // rows + len(near.index) // 8) * 8, torch.int64)
    index[-len(near.index) :] = near.index
    far = PackedTable(front + ROWS, dim, kind, index, near.cols, near.values.clone())
    ids = torch.randint(ROWS, (300,), generator=torch.Generator().manual_seed(1))
    assert same_bits(far.lookup(ids + front), near.lookup(ids))
    users, pos, neg = random_triples(200, USERS, ITEMS, seed=2)
    gradient = torch.randn(300, dim, generator=torch.Generator().manual_seed(2))
    for table, begin in ((near, 0), (far, front)):
        optimizer = Adam(table, lr=0.1)
        ops.bpr_step_(table, optimizer, users + begin, pos, neg, item_offset=begin + USERS, batch_size=64)
        optimizer.update_rows(ids + begin, gradient)
    assert same_bits(far.values, near.values)


@pytest.mark.usefixtures("alone")
def test_whole_passes() -> None:
    """pack, unpack and select over more than 2^31 dense slots."""
    rows = FRONT + ROWS
    dense = untouched(rows * DIM, torch.float16).view(rows, DIM)
    mask = untouched(rows * DIM, torch.uint8).view(rows, DIM).view(torch.bool)
    near, kept = (random_table("bits", ROWS, DIM, seed=3, dtype=torch.float16), slice(FRONT, None))
    dense[kept], mask[kept] = near.to_dense(), near.mask()
    index, cols, values = ops.pack(dense, mask, "bits", near.nnz)
    far = PackedTable(rows, DIM, "bits", index, cols, values)
    assert same_bits(values, near.values[: near.nnz])
    back, where = ops.unpack(far)
    assert torch.equal(where[kept], near.mask())
    assert same_bits(back[kept], near.to_dense())
    assert not bool(back[: FRONT - 1 : 1009].any())
    assert ops.select(dense.view(-1), 100) == ops.select(near.values, 100)
    assert ops.select(dense.view(-1), SHIFT) == (0.0, SHIFT - int(near.values.count_nonzero()))
