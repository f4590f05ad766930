"""PackedTable.init: weights and masks as pure functions of (seed, row, column)."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DIMS, KINDS, same_bits

from recsparse import layout
from recsparse.reference.init import UNIT, initial_ranks, initial_weights
from recsparse.table import PackedTable

SEEDS = (0, 1, 2**40 + 7, 2**63 - 1, -1, -(2**63))
expected_weights, expected_ranks = cache(initial_weights), cache(initial_ranks)


@pytest.mark.parametrize("kind", ["bits", "cols8"])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_equals_the_recipe(kind: str, dim: int, seed: int) -> None:
    rows = 61
    capacity = rows * dim // 3
    table = PackedTable.init(rows, dim, kind=kind, capacity=capacity, seed=seed, std=0.1)
    ranks = expected_ranks(rows, dim, seed)
    mask = ranks < ranks.view(-1).sort().values[capacity]
    assert torch.equal(table.mask(), mask)
    assert same_bits(table.to_dense(), torch.where(mask, expected_weights(rows, dim, seed, 0.1), 0.0))
    table.check_invariants()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", ["full", "prefix", "bernoulli"])
def test_weights_do_not_depend_on_what_else_is_kept(kind: str, start: str, threads: int) -> None:
    rows, dim = 9_000, 33
    if (kind, start) in {("full", "prefix"), ("full", "bernoulli"), ("prefix", "bernoulli")}:
        with pytest.raises(ValueError, match=f"init_index_: kind {kind} .*; use kind bits or cols8"):
            PackedTable.init(rows, dim, kind=kind, capacity=10, start=start)
        return
    capacity = rows * dim if start == "full" else 70_001
    table = PackedTable.init(rows, dim, kind=kind, capacity=capacity, start=start, seed=5)
    mask = table.mask()
    assert same_bits(table.to_dense(), torch.where(mask, expected_weights(rows, dim, 5, 0.01), 0.0))
    if start == "prefix":
        bounds = torch.arange(rows + 1) * capacity // rows
        assert torch.equal(mask, torch.arange(dim) < bounds.diff()[:, None])
    if start == "full":
        assert bool(mask.all())
    table.check_invariants()


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
@pytest.mark.parametrize("capacity", [0, 1, 100, 999, 1_000, 1_001, 32_999, 33_000])
def test_prefix_counts_differ_by_at_most_one(kind: str, capacity: int) -> None:
    table = PackedTable.init(1_000, 33, kind=kind, capacity=capacity, start="prefix")
    counts = table.row_counts()
    assert int(counts.sum()) == table.nnz == capacity
    assert int(counts.max()) - int(counts.min()) <= 1


@given(
    st.sampled_from(["bits", "cols8"]), st.integers(1, 500), st.integers(1, 256), st.floats(0, 1), st.integers(0, 2**63)
)
def test_bernoulli_fills_the_capacity(kind: str, rows: int, dim: int, density: float, seed: int) -> None:
    capacity = int(density * rows * dim)
    table = PackedTable.init(rows, dim, kind=kind, capacity=capacity, seed=seed - 2**62)
    assert capacity - 4 <= table.nnz <= capacity == table.capacity
    table.check_invariants()


def test_bernoulli_of_a_large_table(threads: int) -> None:
    table = PackedTable.init(100_000, 64, kind="bits", capacity=640_000, seed=1)
    assert 640_000 - 20 <= table.nnz <= 640_000
    # 64 columns at 10 %: variance 5.76 of the counts of independent slots.
    assert table.row_counts().float().var().item() == pytest.approx(5.76, rel=0.03)
    columns = table.mask().sum(0).float()
    assert (columns - columns.mean()).abs().max().item() < 5 * columns.mean().sqrt().item()


@pytest.mark.parametrize("std", [0.01, 2.0])
def test_weights_look_normal(std: float) -> None:
    weights = PackedTable.init(4_000, 64, kind="full", capacity=256_000, start="full", seed=3, std=std).values / std
    assert weights.mean().item() == pytest.approx(0, abs=0.01)
    assert weights.std().item() == pytest.approx(1, rel=0.01)
    for sigmas, share in ((1, 0.3173), (2, 0.0455)):
        assert (weights.abs() > sigmas).float().mean().item() == pytest.approx(share, abs=0.015)
    assert weights.abs().max().item() < 131070 / UNIT + 1e-3
    pairs = weights.view(-1, 2)
    assert (pairs[:, 0] * pairs[:, 1]).mean().item() == pytest.approx(0, abs=0.02)


def test_seeds_give_other_masks_and_weights() -> None:
    tables = [PackedTable.init(300, 64, kind="bits", capacity=1_920, seed=seed) for seed in SEEDS]
    for i, a in enumerate(tables):
        for b in tables[:i]:
            # Of 10 % random slots, 10 % are common; a shifted or shared stream would show as far more or fewer.
            assert int((a.mask() & b.mask()).sum()) == pytest.approx(192, abs=70)
            common = a.mask() & b.mask()
            assert int((a.to_dense()[common] == b.to_dense()[common]).sum()) <= 3


def test_slack_stays_zero(poison: None) -> None:
    index = torch.empty(torch.ops.recsparse.index_words(3, 100, 33), dtype=torch.int64)
    cols, values = torch.zeros(1_000, dtype=torch.uint8), torch.zeros(1_000)
    kept = torch.ops.recsparse.init_index_(index, cols, 3, 100, 33, 2, 900, 0)
    torch.ops.recsparse.init_values_(values, index, cols, 3, 100, 33, 0, 0.1)
    assert 896 <= kept <= 900
    table = PackedTable(100, 33, "cols8", index, cols, values)
    assert table.nnz == kept
    table.check_invariants()
    assert not cols[kept:].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity": -1}, "capacity is -1, expected 0..rows * dim = 330"),
        ({"capacity": 331}, "capacity is 331, expected 0..rows * dim = 330"),
        ({"start": "random"}, "start is 'random', expected one of full, prefix, bernoulli"),
        ({"start": "full"}, "a full start keeps 330 weights, kept is 30"),
        ({"kind": "csr"}, "index kind is 'csr'"),
        ({"dim": 257}, "dim is 257, expected 1..256"),
        ({"dim": 0, "capacity": 0}, "dim is 0, expected 1..256"),
        ({"std": float("nan")}, "std is nan, expected a finite number >= 0"),
        ({"std": -1.0}, "std is -1, expected a finite number >= 0"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is checked below)
        PackedTable.init(**{"rows": 10, "dim": 33, "kind": "bits", "capacity": 30, **change})
    assert message in str(caught.value)
    assert len(str(caught.value).strip().splitlines()) == 1


@pytest.mark.parametrize("kind", ["bits", "cols8"])
def test_opcheck(kind: str) -> None:
    """The schema test alone: set-up code is never traced, so these ops have no fake kernel."""
    code, capacity = layout.KINDS[kind], 300
    index = torch.empty(torch.ops.recsparse.index_words(code, 61, 33), dtype=torch.int64)
    cols = torch.zeros(capacity if kind == "cols8" else 0, dtype=torch.uint8)
    args = (index, cols, code, 61, 33, 2, capacity, 7)
    torch.library.opcheck(torch.ops.recsparse.init_index_, args, test_utils="test_schema")
    torch.ops.recsparse.init_index_(*args)
    args = (torch.zeros(capacity), index, cols, code, 61, 33, 7, 0.1)
    torch.library.opcheck(torch.ops.recsparse.init_values_, args, test_utils="test_schema")
