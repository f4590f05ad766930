"""rank and rank_packed in Triton: the lists of the reference where scores are exact, and those of float32 elsewhere."""

from __future__ import annotations

import pytest
import torch
from strategies import DTYPES, KINDS
from torch import Tensor
from triton_tables import DEVICE, INTERPRETED, on_device, on_triton, pair
from triton_tables import rank as kernels

from recsparse import reference
from recsparse.ops import rank, rank_packed
from recsparse.table import PackedTable

Csr = tuple[Tensor, Tensor]


def seen_of(users: int, items: int, seed: int = 0, *, none: bool = False) -> Csr:
    """Users that have seen a random share of the items; some nothing, some all."""
    rng = torch.Generator().manual_seed(seed)
    share = torch.rand(users, 1, generator=rng) ** 3 * (not none)
    if not none:
        share[1::7], share[3::7] = 0, 1.1
    mask = torch.rand(users, items, generator=rng) < share
    return torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)]), mask.nonzero()[:, 1].int()


def whole_rows(count: int, dim: int, largest: int, seed: int) -> Tensor:
    """Small whole numbers: every sum of their products is exact, whatever its order, and ties are many."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(-largest, largest + 1, (count, dim), generator=rng).float()
    rows[torch.rand(count, generator=rng) < 0.1] = 0
    return rows


def on_triton_ranked(users: Tensor, items: Tensor, seen: Csr, k: int) -> Csr:
    found = rank(*on_device(users, items, *seen), k, backend="triton")
    return found[0].cpu(), found[1].cpu()


def assert_same(found: Csr, want: Csr) -> None:
    assert torch.equal(found[0], want[0])
    assert torch.equal(found[1], want[1])


@pytest.mark.parametrize(
    ("users", "items", "dim", "k"),
    [
        (40, 300, 33, 20),
        (5, 400, 1, 70),
        (17, 129, 256, 7),
        (3, 100, 16, 500),
        (0, 50, 8, 5),
        (4, 0, 8, 5),
        (1, 1, 100, 1),
    ],
)
@pytest.mark.parametrize("largest", [1, 100])
def test_equals_the_reference_with_many_ties(users: int, items: int, dim: int, k: int, largest: int) -> None:
    rows = whole_rows(users, dim, largest, 1), whole_rows(items, dim, largest, 2)
    seen = seen_of(users, items)
    assert_same(on_triton_ranked(*rows, seen, k), reference.rank(*rows, *seen, k))


def test_a_long_list_is_made_in_passes() -> None:
    rows = whole_rows(4, 16, 2, 1), whole_rows(250, 16, 2, 2)
    for k in (64, 150):
        seen = seen_of(4, 250, k)
        assert_same(on_triton_ranked(*rows, seen, k), reference.rank(*rows, *seen, k))


@pytest.mark.parametrize(("block", "floats"), [(16, 1 << 25), (16, 16 * 4), (64, 100 * 4)])
def test_items_in_splits_and_both_sides_in_parts(block: int, floats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists do not depend on how items are cut."""
    monkeypatch.setattr(kernels, "BLOCK_ITEMS", block)
    monkeypatch.setattr(kernels, "CHUNK_FLOATS", floats)
    monkeypatch.setattr(kernels, "LEAST_TILES", 4)
    rows, seen = (whole_rows(20, 4, 3, 1), whole_rows(270, 4, 3, 2)), seen_of(20, 270)
    assert_same(on_triton_ranked(*rows, seen, 9), reference.rank(*rows, *seen, 9))


def test_lists_of_real_numbers_are_those_of_float32() -> None:
    rng = torch.Generator().manual_seed(1)
    users, items = torch.randn(40, 48, generator=rng), torch.randn(900, 48, generator=rng)
    seen = seen_of(40, 900)
    found, want = on_triton_ranked(users, items, seen, 20), rank(users, items, *seen, 20)
    assert torch.equal(found[0], want[0])
    torch.testing.assert_close(found[1], want[1], rtol=1e-5, atol=1e-5)


def test_adversarial_order_and_zeros_of_either_sign() -> None:
    items = torch.arange(700.0)[:, None]  # every item beats the worst of the list
    seen = torch.tensor([0, 1]), torch.tensor([698], dtype=torch.int32)
    assert on_triton_ranked(torch.ones(1, 1), items, seen, 3)[0].tolist() == [[699, 697, 696]]
    tiny = torch.where(torch.arange(300) % 2 == 0, -1e-30, 1e-30)[:, None]
    found = on_triton_ranked(torch.full((1, 1), 1e-30), tiny, seen_of(1, 300, none=True), 3)
    assert found[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_dense(kind: str) -> None:
    for dim, dtype in zip((7, 64, 256), DTYPES, strict=True):
        native, triton = pair(kind, 190, dim, seed=dim, dtype=dtype)
        users = torch.randint(0, 90, (9,), generator=torch.Generator().manual_seed(1))
        seen = seen_of(9, 100)
        found = rank_packed(triton, on_device(users), *on_device(*seen), 7, item_offset=90)
        dense = native.to_dense().float()
        want = on_triton_ranked(dense[users], dense[90:].contiguous(), seen, 7)
        assert_same((found[0].cpu(), found[1].cpu()), want)


def test_packed_equals_the_reference() -> None:
    table = PackedTable.from_dense(whole_rows(80, 33, 2, 4), kind="bits")
    users, seen = torch.tensor([3, 3, 0, 29]), seen_of(4, 50)
    want = reference.rank_packed(table.index, table.cols, table.values, users, *seen, 60, 30, *table.layout)
    found = rank_packed(on_triton(table), on_device(users), *on_device(*seen), 60, item_offset=30)
    assert_same((found[0].cpu(), found[1].cpu()), want)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2e18])
def test_rows_that_cannot_be_ranked_are_named(bad: float) -> None:
    users, items = torch.ones(50, 20), torch.ones(200, 20)
    users[25:, 19] = bad
    items[150:, 3] = bad
    with pytest.raises(ValueError, match="item row 150 holds NaN, infinity or numbers too large"):
        on_triton_ranked(users[:5], items, seen_of(5, 200), 5)
    with pytest.raises(ValueError, match="user row 25 holds NaN, infinity or numbers too large"):
        on_triton_ranked(users, items[:100], seen_of(50, 100), 5)
    table = on_triton(PackedTable.from_dense(torch.ones(31, 20), kind="full"))
    table.values[29 * 20] = bad
    with pytest.raises(ValueError, match="user row 29 holds"):
        rank_packed(table, on_device(torch.tensor([0, 29])), *on_device(*seen_of(2, 1, none=True)), 5, item_offset=30)


def test_the_same_bits_each_time() -> None:
    rng = torch.Generator().manual_seed(1)
    users, items, seen = torch.randn(9, 33, generator=rng), torch.randn(200, 33, generator=rng), seen_of(9, 200)
    results = [on_triton_ranked(users, items, seen, 20) for _ in range(3)]
    for result in results[1:]:
        assert_same(result, results[0])


def test_wrong_arguments_are_named() -> None:
    users, items, *seen = on_device(torch.ones(2, 4), torch.ones(3, 4), *seen_of(2, 3, none=True))
    for call, error, message in (
        ((users, items, *seen, 0), ValueError, "k is 0, expected at least 1"),
        ((users, items[:, :3].contiguous(), *seen, 1), ValueError, "user rows have 4 columns but item rows have 3"),
        ((users.T, items, *seen, 1), ValueError, "users is not contiguous"),
        ((users, items.double(), *seen, 1), TypeError, r"items has dtype torch\.float64"),
        ((users, items, seen[0][:2], seen[1], 1), ValueError, "indptr has 2 entries, expected 3"),
        ((users, items, seen[0] + 1, seen[1], 1), ValueError, "indptr must ascend within 0..0"),
    ):
        with pytest.raises(error, match=message):
            rank(*call, backend="triton")
    table = on_triton(PackedTable.from_dense(torch.ones(5, 4)))
    with pytest.raises(ValueError, match="item_offset is 6"):
        rank_packed(table, torch.zeros(2, dtype=torch.int64, device=DEVICE), *seen, 1, item_offset=6)
    if INTERPRETED:
        with pytest.raises(IndexError, match=r"users\[1\] = 5 is out of range, expected 0\.\.4"):
            rank_packed(table, torch.tensor([0, 5]), *seen, 1, item_offset=2)
