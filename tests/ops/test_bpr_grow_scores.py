"""bpr_grow_scores: the largest gradients of slots that are not kept."""

from __future__ import annotations

import pytest
import torch
from strategies import DIMS, KINDS, random_table, random_triples, same_bits
from torch import Tensor

from recsparse import ops, reference
from recsparse.table import PackedTable

USERS, ITEMS = 40, 50
ROWS = USERS + ITEMS
TOLERANCE = 1e-6


def assert_like_the_reference(table: PackedTable, triples: tuple[Tensor, Tensor, Tensor], limit: int) -> None:
    keys, scores = ops.bpr_grow_scores(table, *triples, item_offset=USERS, limit=limit)
    args = (table.index, table.cols, table.values, *triples, *table.layout, USERS)
    all_keys, all_scores = reference.bpr_grow_scores(*args, table.rows * table.dim)
    assert (keys.dtype, scores.dtype) == (torch.int64, torch.float32)
    assert bool((keys.diff() > 0).all())
    assert not table.mask().view(-1)[keys].any()
    assert bool((scores > 0).all())
    assert len(keys) <= limit
    want = torch.zeros(table.rows * table.dim)
    want[all_keys] = all_scores
    torch.testing.assert_close(scores, want[keys], rtol=0, atol=TOLERANCE)
    # What was left out is no better than what was taken: up to rounding, the kept set is the top set.
    left = want.clone()
    left[keys] = 0
    floor = float(scores.min()) if len(keys) == limit and limit else 0.0
    assert limit == 0 or float(left.max()) <= floor + TOLERANCE


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("limit", [1, 37, 10**9])
def test_equals_the_reference(kind: str, dim: int, limit: int) -> None:
    table = random_table(kind, ROWS, dim, seed=dim, slack=3)
    assert_like_the_reference(table, random_triples(45, USERS, ITEMS, seed=dim), limit)


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
@pytest.mark.parametrize("limit", [50, 2_000])
def test_many_more_candidates_than_the_limit(kind: str, limit: int, threads: int, poison: None) -> None:
    """The candidates of a thread are cut back to the limit again and again."""
    table = random_table(kind, 400, 64, density=None if kind == "prefix" else 0.1)
    triples = random_triples(3_000, USERS, 400 - USERS, seed=1)
    assert_like_the_reference(table, triples, limit)


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 900, 1_000, 2_047, 2_048, 5_000])
def test_ties_go_to_the_lower_key(limit: int, threads: int) -> None:
    """256 triples of users and items that share no column: all 2,048 scores are exactly 0.5 / 256."""
    n, dim = 256, 8
    mask = torch.zeros(3 * n, dim, dtype=torch.bool)
    mask[:n, :4] = True
    mask[n:, 4:] = True
    table = PackedTable.from_dense(mask.float(), mask)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    keys, scores = ops.bpr_grow_scores(table, order, order, n + order.flip(0), item_offset=n, limit=limit)
    slots = (torch.arange(n, 3 * n)[:, None] * dim + torch.arange(4)).view(-1)
    assert torch.equal(keys, slots[:limit])
    assert torch.equal(scores, torch.full((len(keys),), 0.5 / n))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_return(kind: str) -> None:
    table = random_table(kind, ROWS, 33)
    for n, limit in ((0, 10), (20, 0)):
        keys, scores = ops.bpr_grow_scores(table, *random_triples(n, USERS, ITEMS), item_offset=USERS, limit=limit)
        assert (keys.shape, scores.shape) == ((0,), (0,))
    if kind == "full":
        assert ops.bpr_grow_scores(table, *random_triples(20, USERS, ITEMS), item_offset=USERS, limit=9)[0].numel() == 0


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
def test_same_bits_for_any_thread_count(kind: str) -> None:
    table = random_table(kind, ROWS, 100)
    triples = random_triples(2_000, USERS, ITEMS)
    before, results = torch.get_num_threads(), []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        results.append(ops.bpr_grow_scores(table, *triples, item_offset=USERS, limit=700))
    torch.set_num_threads(before)
    assert len(results[0][0]) == 700
    for result in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"users": torch.tensor([0, USERS])}, IndexError, f"users[1] = {USERS} is out of range, expected 0..39"),
        ({"pos": torch.tensor([-1, 0])}, IndexError, "pos[0] = -1 is out of range, expected 0..49"),
        ({"neg": torch.tensor([0, 2**63 - 1])}, IndexError, f"neg[1] = {2**63 - 1} is out of range"),
        ({"limit": -1}, ValueError, "limit is -1, expected at least 0"),
        ({"pos": torch.zeros(2)}, TypeError, "pos has dtype Float, expected Long"),
        ({"neg": torch.zeros(2, dtype=torch.int64, device="meta")}, ValueError, "neg is on meta, expected cpu"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, object], error: type[Exception], message: str) -> None:
    ids = {name: torch.zeros(2, dtype=torch.int64) for name in ("users", "pos", "neg")}
    with pytest.raises(error) as caught:
        ops.bpr_grow_scores(random_table("bits", ROWS, 33), **{**ids, "item_offset": USERS, "limit": 5, **change})
    assert f"bpr_grow_scores: {message}" in str(caught.value)


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
def test_opcheck(kind: str) -> None:
    table = random_table(kind, ROWS, 33)
    args = (table.index, table.cols, table.values, *random_triples(20, USERS, ITEMS), *table.layout, USERS, 30)
    torch.library.opcheck(torch.ops.recsparse.bpr_grow_scores, args)
