"""Weights of 16 bits in training: read exactly, updated in float32, written back with stochastic rounding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DIMS, KINDS, kinds, random_case, random_table, random_triples, same_bits, seeds
from torch import Tensor

from recsparse import ops
from recsparse.optim import Adam
from recsparse.reference.rounding import round_stochastic, rounding_bits
from recsparse.table import PackedTable

USERS, ITEMS = 40, 50
ROWS = USERS + ITEMS
HALVES = (torch.float16, torch.bfloat16)


def all_numbers(dtype: torch.dtype) -> Tensor:
    """Every finite value of a 16-bit type, with both zeros."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    return every[every.isfinite()]


def twins(
    kind: str, rows: int, dim: int, dtype: torch.dtype, *, seed: int = 0, density: float | None = None
) -> tuple[PackedTable, PackedTable]:
    """A table of `dtype`, and the same weights in float32."""
    dense, mask = random_case(kind, rows, dim, seed=seed, density=density, scale=0.3)
    small = PackedTable.from_dense(dense, mask, kind=kind, dtype=dtype)
    return small, PackedTable.from_dense(dense.to(dtype).float(), mask, kind=kind)


def assert_rounded_like_the_reference(
    small: PackedTable, wide: PackedTable, triples: tuple[Tensor, Tensor, Tensor], offset: int, *, seed: int, steps: int
) -> None:
    """After each step the weights are those of float32 arithmetic on the same weights, rounded with the right bits."""
    optimizer, wide_optimizer = Adam(small, lr=0.01, seed=seed), Adam(wide, lr=0.01)
    mask = wide.mask()
    rows, position = torch.arange(wide.rows)[:, None], mask.cumsum(1) - 1
    for step in range(1, steps + 1):
        arguments = {"item_offset": offset, "batch_size": len(triples[0]), "l2": 0.02}
        loss = ops.bpr_step_(small, optimizer, *triples, **arguments)
        wide_loss = ops.bpr_step_(wide, wide_optimizer, *triples, **arguments)
        assert loss.dtype == torch.float32
        assert same_bits(loss, wide_loss)
        assert same_bits(optimizer.moments, wide_optimizer.moments)
        rounded = round_stochastic(wide.to_dense(), small.dtype, rounding_bits(seed, step, rows, position))
        assert same_bits(small.values[: small.nnz], rounded[mask])
        wide.values[: wide.nnz] = rounded[mask].float()
    small.check_invariants()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_one_step_is_float32_arithmetic_rounded_once(kind: str, dim: int, dtype: torch.dtype) -> None:
    small, wide = twins(kind, ROWS, dim, dtype, seed=dim)
    triples = random_triples(150, USERS, ITEMS, seed=dim)
    assert_rounded_like_the_reference(small, wide, triples, USERS, seed=dim - 2**63, steps=3)


@settings(max_examples=25)
@given(kinds, st.integers(1, 256), seeds, st.sampled_from(HALVES), st.integers(1, 60), st.sampled_from([2, None]))
def test_any_shape(kind: str, dim: int, seed: int, dtype: torch.dtype, count: int, hot: int | None) -> None:
    small, wide = twins(kind, ROWS, dim, dtype, seed=seed)
    triples = random_triples(count, USERS, ITEMS, seed=seed, hot=hot)
    assert_rounded_like_the_reference(small, wide, triples, USERS, seed=seed, steps=2)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("kind", "density"), [("bits", 0.1), ("cols8", 0.3), ("prefix", 0.25), ("full", None)])
def test_tables_larger_than_the_caches(kind: str, density: float | None, dtype: torch.dtype, threads: int) -> None:
    """Their rows are read and written through accesses that stay within a cache line of 32 values."""
    rows, users = (270_000 if density == 0.1 else 120_000) if density else 40_000, 20_000
    small, wide = twins(kind, rows, 64, dtype, density=density)
    assert 10 * small.capacity > 16 << 20
    triples = random_triples(5_000, users, rows - users)
    assert_rounded_like_the_reference(small, wide, triples, users, seed=1, steps=1)


@pytest.mark.parametrize("dtype", HALVES)
def test_lookup_in_a_table_larger_than_the_caches(dtype: torch.dtype) -> None:
    """Rows of about nineteen weights: some in one vector, some in two, at every place of a cache line."""
    table = random_table("bits", 450_000, 64, density=0.3, dtype=dtype)
    assert table.nbytes()["total"] > 16 << 20
    assert same_bits(ops.lookup(table, torch.arange(table.rows)), table.to_dense())


@pytest.mark.parametrize("dtype", HALVES)
def test_same_bits_for_any_thread_count(dtype: torch.dtype) -> None:
    results = []
    before = torch.get_num_threads()
    for number in (1, 2, 3, 2):
        torch.set_num_threads(number)
        table = random_table("bits", ROWS, 100, scale=0.3, dtype=dtype)
        optimizer = Adam(table, lr=0.01, seed=9)
        ops.bpr_step_(table, optimizer, *random_triples(5_000, USERS, ITEMS), item_offset=USERS, batch_size=700)
        results.append(table.values)
    torch.set_num_threads(before)
    assert all(same_bits(result, results[0]) for result in results)


@pytest.mark.parametrize("dtype", HALVES)
def test_seed_and_step_choose_the_bits(dtype: torch.dtype) -> None:
    def trained(seed: int, step: int) -> Tensor:
        table = random_table("bits", ROWS, 64, scale=0.3, dtype=dtype)
        optimizer = Adam(table, lr=1e-3, seed=seed)
        optimizer.step.fill_(step)
        ops.bpr_step_(table, optimizer, *random_triples(500, USERS, ITEMS), item_offset=USERS, batch_size=500)
        return table.values

    first = trained(0, 100_000)
    assert same_bits(first, trained(0, 100_000))
    assert not torch.equal(first, trained(1, 100_000))
    assert not torch.equal(first, trained(2**32, 100_000))
    assert not torch.equal(first, trained(0, 100_001))


@pytest.mark.parametrize("dtype", HALVES)
def test_updates_far_below_the_resolution_add_up(dtype: torch.dtype) -> None:
    """Every weight is near 1 and drifts by about 1e-5 a step, 1/50 of a step of float16 and 1/400 of bfloat16."""
    rows, steps = 3_000, 120
    dense = torch.ones(rows, 64)
    dense[rows // 2 :] += 0.0625 * torch.randint(
        0, 2, (rows - rows // 2, 64), generator=torch.Generator().manual_seed(1)
    )
    moved = []
    for kind in (torch.float32, dtype):
        table = PackedTable.from_dense(dense, kind="full", dtype=kind)
        optimizer = Adam(table, lr=1e-5, seed=4)
        ids = torch.arange(rows // 2)
        triples = (ids.repeat(steps), ids.repeat(steps), ids.flip(0).repeat(steps))
        ops.bpr_step_(table, optimizer, *triples, item_offset=rows // 2, batch_size=rows // 2, l2=1.0)
        moved.append((table.to_dense().double() - dense).mean(1))
    exact, rounded = moved
    assert exact.abs().mean() > 3e-4
    # A sum of steps is off by at most half a step of the type each way: the mean of 64 weights by an eighth of that.
    assert (rounded - exact).abs().max() < torch.finfo(dtype).eps * 1.0
    assert (rounded - exact).mean().abs() < 0.02 * exact.abs().mean()


@pytest.mark.parametrize("dtype", HALVES)
def test_a_weight_without_an_update_keeps_its_bits(dtype: torch.dtype) -> None:
    """The gradient of a user is exactly 0 where the positive is the negative."""
    numbers = all_numbers(dtype)
    users = numbers[: len(numbers) // 64 * 64].view(-1, 64)
    dense = torch.cat([users, torch.zeros(1, 64, dtype=dtype)])
    ids, item = torch.arange(len(users)), torch.zeros(len(users), dtype=torch.int64)
    for seed in range(4):
        table = PackedTable.from_dense(dense, torch.ones(dense.shape, dtype=torch.bool), kind="full")
        ops.bpr_step_(table, Adam(table, seed=seed), ids, item, item, item_offset=len(users), batch_size=len(users))
        assert same_bits(table.to_dense()[:-1], users)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_largest_number_stays_finite_and_nan_stays(dtype: torch.dtype) -> None:
    """One user of weight 1; the positive item is as good as the negative one and wants to grow."""
    largest = torch.finfo(dtype).max
    table = PackedTable.from_dense(torch.tensor([[1.0], [largest], [largest]]), kind="full", dtype=dtype)
    zero, one = torch.tensor([0]), torch.tensor([1])
    for seed in range(20):
        ops.bpr_step_(table, Adam(table, lr=10.0, seed=seed), zero, zero, one, item_offset=1, batch_size=1)
        table.values[0] = 1.0
        table.values[2] = largest
        assert float(table.values[1]) == largest
    table.values[0] = float("nan")
    loss = ops.bpr_step_(table, Adam(table), zero, zero, one, item_offset=1, batch_size=1)
    assert loss.isnan().all()
    assert table.values.isnan().all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["bits", "full"])
def test_every_number_survives_pack_lookup_and_unpack(dtype: torch.dtype, kind: str) -> None:
    numbers = all_numbers(dtype)
    dense = numbers[: len(numbers) // 48 * 48].view(-1, 48)
    table = PackedTable.from_dense(dense, torch.ones(dense.shape, dtype=torch.bool), kind=kind)
    assert same_bits(ops.lookup(table, torch.arange(table.rows)), dense)
    assert same_bits(table.to_dense(), dense)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_reference_rounds_without_bias(dtype: torch.dtype) -> None:
    """Over all random words that differ in the bits that count, the share rounded up is the distance, exactly."""
    x = torch.tensor([1.0 + 1 / 3, -0.1, 3.1e-5, -1.7e-7, 65503.0, 1e-3])
    random = torch.arange(1 << 21)[:, None]
    mean = round_stochastic(x.expand(1 << 21, -1), dtype, random).double().mean(0)
    torch.testing.assert_close(mean, x.double(), rtol=1e-9, atol=2e-14)
