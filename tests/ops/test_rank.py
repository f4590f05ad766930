from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DIMS, DTYPES, KINDS, random_table, seeds

from recsparse import reference
from recsparse.bench import memory
from recsparse.errors import BackendError
from recsparse.ops import rank, rank_packed
from recsparse.table import PackedTable

SCREENS = ("float32", "int8")
Csr = tuple[torch.Tensor, torch.Tensor]


def nothing_seen(users: int) -> Csr:
    return torch.zeros(users + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)


def random_seen(users: int, items: int, rng: torch.Generator, *, extreme: bool = True) -> Csr:
    """Users that have seen a random share of the items; some nothing, some all."""
    share = torch.rand(users, 1, generator=rng) ** 3
    if extreme:
        share[1::7], share[3::7] = 0, 1.1
    mask = torch.rand(users, items, generator=rng) < share
    return torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)]), mask.nonzero()[:, 1].int()


def whole_rows(count: int, dim: int, largest: int, rng: torch.Generator) -> torch.Tensor:
    """Small whole numbers: every sum of their products is exact, whatever its order, and ties are many."""
    rows = torch.randint(-largest, largest + 1, (count, dim), generator=rng).float()
    rows[torch.rand(count, generator=rng) < 0.1] = 0
    return rows


def same(a: Csr, b: Csr) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


@settings(max_examples=80)
@given(st.data())
def test_equals_the_reference_with_many_ties(data: st.DataObject) -> None:
    rng = torch.Generator().manual_seed(data.draw(seeds))
    users, items = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 400))
    dim, k = data.draw(st.sampled_from(DIMS)), data.draw(st.sampled_from((1, 2, 20, 70, 500)))
    largest = data.draw(st.sampled_from((1, 3, 100)))
    rows = whole_rows(users, dim, largest, rng), whole_rows(items, dim, largest, rng)
    seen = random_seen(users, items, rng)
    expected = reference.rank(*rows, *seen, k)
    for screen in SCREENS:
        assert same(rank(*rows, *seen, k, screen=screen), expected)
    assert same(rank(*rows, *seen, k, backend="reference"), expected)


@pytest.mark.parametrize("k", [1, 20, 64, 300])
@pytest.mark.parametrize("spread", ["even", "popular", "clustered", "outliers"])
def test_screens_agree_with_each_other_and_with_float64(spread: str, k: int, threads: int) -> None:
    """Many panels, so that thresholds are seeded; lists of real numbers."""
    rng = torch.Generator().manual_seed(k)
    users, items = torch.randn(150, 48, generator=rng), torch.randn(4_003, 48, generator=rng)
    if spread == "popular":
        items *= torch.rand(len(items), 1, generator=rng) ** 4
    elif spread == "clustered":  # scores that hardly differ: int8 cannot tell them apart and gives up
        items = items[:1] + 1e-4 * items
    elif spread == "outliers":
        items[torch.rand(items.shape, generator=rng) < 0.002] *= 1000
    seen = random_seen(len(users), len(items), rng)
    ours = rank(users, items, *seen, k, screen="float32")
    assert same(rank(users, items, *seen, k, screen="int8"), ours)
    assert same(rank(users, items, *seen, k), ours)
    _, best = reference.rank(users, items, *seen, k)
    size = users.norm(dim=1, keepdim=True) * items.norm(dim=1).max()
    filled = ours[0] >= 0
    assert torch.equal(filled, best > -torch.inf)
    assert bool(((ours[1] - best).abs() <= 1e-6 * size)[filled].all())
    exact = torch.gather(users.double() @ items.double().T, 1, ours[0].clamp(min=0).long())
    assert bool(((ours[1] - exact).abs() <= 1e-6 * size)[filled].all())
    mask = torch.zeros(len(users), len(items), dtype=torch.bool)
    owners = torch.repeat_interleave(torch.arange(len(users)), seen[0].diff())
    mask[owners, seen[1].long()] = True
    assert not bool((torch.gather(mask, 1, ours[0].clamp(min=0).long()) & filled).any())


@pytest.mark.parametrize("screen", SCREENS)
def test_lists_go_on_from_one_part_of_the_items_to_the_next(screen: str, threads: int) -> None:
    """Rows so wide that the working memory holds a third of the items."""
    rng = torch.Generator().manual_seed(5)
    users = torch.randint(-1, 2, (9, 4096), generator=rng, dtype=torch.int8).float()
    items = torch.randint(-1, 2, (9_000, 4096), generator=rng, dtype=torch.int8).float()
    seen = random_seen(9, 9_000, rng)
    for k in (20, 8_000):
        expected = reference.rank(users, items, *seen, k)
        assert same(rank(users, items, *seen, k, screen=screen), expected)


@pytest.mark.parametrize("screen", SCREENS)
def test_no_score_matrix_is_ever_in_memory(screen: str) -> None:
    users, items = torch.randn(3_000, 16), torch.randn(400_000, 16)
    grown = memory.peak_growth(lambda: rank(users, items, *nothing_seen(3_000), 20, screen=screen))
    assert grown is not None
    assert grown < 400 << 20  # the scores would be 4.8 GB


def test_same_bits_for_any_number_of_threads() -> None:
    rng = torch.Generator().manual_seed(0)
    users, items = torch.randn(700, 40, generator=rng), torch.randn(3_000, 40, generator=rng)
    seen = random_seen(700, 3_000, rng)
    before = torch.get_num_threads()
    try:
        for screen in SCREENS:
            torch.set_num_threads(1)
            first = rank(users, items, *seen, 30, screen=screen)
            for count in (2, 3):
                torch.set_num_threads(count)
                assert same(rank(users, items, *seen, 30, screen=screen), first)
    finally:
        torch.set_num_threads(before)


def test_a_list_does_not_depend_on_the_other_users() -> None:
    rng = torch.Generator().manual_seed(1)
    users, items = torch.randn(300, 64, generator=rng), torch.randn(2_500, 64, generator=rng)
    whole = rank(users, items, *nothing_seen(300), 20)
    for u in (0, 1, 299):
        alone = rank(users[u : u + 1], items, *nothing_seen(1), 20)
        assert same(alone, (whole[0][u : u + 1], whole[1][u : u + 1]))


@pytest.mark.parametrize("screen", SCREENS)
def test_adversarial_order(screen: str) -> None:
    items = torch.arange(5000.0)[:, None]  # every item beats the threshold
    seen = torch.tensor([0, 1]), torch.tensor([4998], dtype=torch.int32)
    assert rank(torch.ones(1, 1), items, *seen, 3, screen=screen)[0].tolist() == [[4999, 4997, 4996]]
    for zero in (torch.zeros(5000, 1), -torch.zeros(5000, 1)):
        assert rank(torch.ones(1, 1), zero, *seen, 3, screen=screen)[0].tolist() == [[0, 1, 2]]
        assert rank(torch.zeros(1, 1), items, *seen, 3, screen=screen)[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scale", [1e-30, 1e-16, 1e-8, 1e8, 1e16])
def test_any_magnitude(scale: float, screen: str) -> None:
    rng = torch.Generator().manual_seed(3)
    users, items = whole_rows(20, 16, 9, rng), whole_rows(3_000, 16, 9, rng)
    power = 2.0 ** round(torch.tensor(scale).log2().item())
    expected = rank(users, items, *nothing_seen(20), 25, screen="float32")
    assert torch.equal(expected[0], reference.rank(users, items, *nothing_seen(20), 25)[0])
    found = rank(users * power, items, *nothing_seen(20), 25, screen=screen)
    assert torch.equal(found[0], expected[0])
    both = rank(users, items * power, *nothing_seen(20), 25, screen=screen)
    assert torch.equal(both[0], expected[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_equals_dense(kind: str, dtype: torch.dtype, threads: int) -> None:
    for dim in (7, 64, 100, 256):
        table = random_table(kind, 300, dim, seed=dim, dtype=dtype)
        dense = table.to_dense().float()
        users = torch.randint(0, 90, (50,), generator=torch.Generator().manual_seed(1))
        seen = random_seen(50, 210, torch.Generator().manual_seed(2))
        for screen in SCREENS:
            expected = rank(dense[users], dense[90:].contiguous(), *seen, 20, screen=screen)
            assert same(rank_packed(table, users, *seen, 20, item_offset=90, screen=screen), expected)


def test_packed_equals_the_reference() -> None:
    rng = torch.Generator().manual_seed(4)
    table = PackedTable.from_dense(whole_rows(80, 33, 2, rng), kind="bits")
    users, seen = torch.tensor([3, 3, 0, 29]), random_seen(4, 50, rng)
    expected = reference.rank_packed(table.index, table.cols, table.values, users, *seen, 60, 30, *table.layout)
    assert same(rank_packed(table, users, *seen, 60, item_offset=30), expected)
    assert (expected[0] == -1).any()


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 2e18])
def test_rows_that_cannot_be_ranked(bad: float, screen: str) -> None:
    users, items = torch.ones(300, 20), torch.ones(2_000, 20)
    users[250:, 19] = bad
    items[1500:, 3] = bad
    with pytest.raises(ValueError, match="item row 1500 holds NaN, infinity or numbers too large"):
        rank(torch.ones(5, 20), items, *nothing_seen(5), 5, screen=screen)
    with pytest.raises(ValueError, match="user row 250 holds NaN, infinity or numbers too large"):
        rank(users, torch.ones(100, 20), *nothing_seen(300), 5, screen=screen)
    table = PackedTable.from_dense(torch.ones(310, 20), kind="full")
    table.values[299 * 20] = bad
    with pytest.raises(ValueError, match="user row 299 holds"):
        rank_packed(table, torch.tensor([0, 299]), *nothing_seen(2), 5, item_offset=300, screen=screen)


def test_bad_arguments() -> None:
    users, items, seen = torch.ones(2, 4), torch.ones(3, 4), nothing_seen(2)
    with pytest.raises(ValueError, match="k is 0, expected at least 1"):
        rank(users, items, *seen, 0)
    with pytest.raises(ValueError, match="screen is 'int4', expected one of auto, float32, int8"):
        rank(users, items, *seen, 1, screen="int4")
    with pytest.raises(ValueError, match="user rows have 4 columns but item rows have 3"):
        rank(users, items[:, :3].contiguous(), *seen, 1)
    with pytest.raises(ValueError, match="users is not contiguous"):
        rank(torch.ones(4, 2).T, items, *seen, 1)
    with pytest.raises(TypeError, match="items has dtype Double, expected Float"):
        rank(users, items.double(), *seen, 1)
    with pytest.raises(ValueError, match="indptr has 2 entries, expected 3"):
        rank(users, items, *nothing_seen(1), 1)
    for starts in ([0, 2, 1], [0, 0, 5], [-1, 0, 0]):
        with pytest.raises(ValueError, match="indptr must ascend"):
            rank(users, items, torch.tensor(starts), torch.zeros(1, dtype=torch.int32), 1)
    table = PackedTable.from_dense(torch.ones(5, 4))
    with pytest.raises(IndexError, match=r"users\[1\] = 5 is out of range, expected 0\.\.4"):
        rank_packed(table, torch.tensor([0, 5]), *seen, 1, item_offset=2)
    with pytest.raises(ValueError, match="item_offset is 6"):
        rank_packed(table, torch.tensor([0, 1]), *seen, 1, item_offset=6)
    with pytest.raises(BackendError, match="backend cuda"):
        rank(users, items, *seen, 1, backend="cuda")


@pytest.mark.parametrize("screen", [0, 1])
def test_opcheck(screen: int) -> None:
    users, items, seen = torch.randn(5, 8), torch.randn(30, 8), random_seen(5, 30, torch.Generator().manual_seed(0))
    torch.library.opcheck(torch.ops.recsparse.rank, (users, items, *seen, 4, screen))
    table = random_table("bits", 30, 8)
    ids = torch.tensor([0, 2, 2, 9, 1])
    torch.library.opcheck(
        torch.ops.recsparse.rank_packed,
        (table.index, table.cols, table.values, ids, *seen, 4, 0, *table.layout, screen),
    )
