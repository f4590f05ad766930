"""prune_regrow_ in Triton: bit-equal to the native op, with any number of slabs."""

from __future__ import annotations

import pytest
import torch
from strategies import DTYPES, random_case
from torch import Tensor
from triton_tables import assert_same_table, on_device, on_triton, prune_regrow

from recsparse import ops
from recsparse.table import PackedTable


def candidates(mask: Tensor, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(keys, scores) of a share of the free slots; many scores are equal."""
    rng = torch.Generator().manual_seed(seed)
    free = (~mask).view(-1).nonzero()[:, 0]
    keys = free[torch.rand(len(free), generator=rng) < share]
    return keys, torch.randn(len(keys), generator=rng).mul(3).round()


def assert_same(dense: Tensor, mask: Tensor, kind: str, keys: Tensor, scores: Tensor, drop: int, grow: int,
                *, slack: int = 9, per_weight: int = 2, dtype: torch.dtype = torch.float32) -> None:  # fmt: skip
    native = PackedTable.from_dense(dense, mask, kind=kind, capacity=int(mask.sum()) + slack, dtype=dtype)
    triton = on_triton(native)
    state = torch.arange(float(per_weight * native.capacity)) if per_weight else None
    if state is not None:
        state[per_weight * native.nnz :] = 0
    other = None if state is None else on_device(state)
    counts = ops.prune_regrow_(native, state, keys, scores, drop=drop, grow=grow)
    assert ops.prune_regrow_(triton, other, *on_device(keys, scores), drop=drop, grow=grow) == counts
    assert_same_table(triton, native)
    assert state is None or torch.equal(other.cpu(), state)
    triton.check_invariants()


@pytest.mark.parametrize("kind", ["bits", "cols8"])
@pytest.mark.parametrize("dim", [1, 33, 256])
@pytest.mark.parametrize("slab_values", [1 << 20, 60], ids=["one slab", "many slabs"])
def test_equals_the_native_op(kind: str, dim: int, slab_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded weights: many are equal, and the lower positions stay."""
    monkeypatch.setattr(prune_regrow, "SLAB_VALUES", slab_values)
    monkeypatch.setattr(prune_regrow, "SLAB_SHARE", 50)
    dense, mask = random_case(kind, 61, dim, seed=dim)
    keys, scores = candidates(mask, 0.5, dim)
    amount = min(len(keys) // 2, int(mask.sum()) // 3)
    assert_same(dense.mul(2).round(), mask, kind, keys, scores, amount, amount + 4)


@pytest.mark.parametrize(
    ("drop", "grow", "share"),
    [(0, 0, 0.5), (50, 0, 0.5), (0, 9, 0.5), (10**9, 10**9, 1.0), (200, 200, 0.02), (100, 100, 0.0)],
    ids=["nothing", "only drop", "only grow", "everything", "few candidates", "no candidates"],
)
def test_amounts(drop: int, grow: int, share: float) -> None:
    dense, mask = random_case("bits", 61, 33, density=0.4)
    keys, scores = candidates(mask, share)
    drop = min(drop, int(mask.sum()))
    assert_same(dense, mask, "bits", keys, scores, drop, min(grow, drop + 9), per_weight=1)


@pytest.mark.parametrize("down", [True, False])
def test_slabs_that_all_move_one_way(down: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights leave at one end of the table and enter at the other, so every boundary moves far."""
    monkeypatch.setattr(prune_regrow, "SLAB_VALUES", 40)
    monkeypatch.setattr(prune_regrow, "SLAB_SHARE", 50)
    mask = torch.rand(60, 33, generator=torch.Generator().manual_seed(0)) < 0.5
    dense = torch.rand(60, 33) + 1
    here, there = (slice(0, 20), slice(40, 60)) if down else (slice(40, 60), slice(0, 20))
    dense[here] *= 1e-3
    free = torch.zeros_like(mask)
    free[there] = ~mask[there]
    keys = free.view(-1).nonzero()[:, 0]
    amount = min(len(keys), int(mask[here].sum()))
    assert_same(dense, mask, "bits", keys, torch.ones(len(keys)), amount, amount)


def test_the_order_of_slabs_overwrites_nothing() -> None:
    """Against the definition: a slab is written only when all that lies there has been moved."""
    rng = torch.Generator().manual_seed(0)
    for _ in range(300):
        count = int(torch.randint(1, 12, (1,), generator=rng))
        old, new = ([0, *torch.randint(0, 9, (count,), generator=rng).cumsum(0).tolist()] for _ in range(2))
        moved: set[int] = set()
        for slab in prune_regrow.slab_order(old[:-1], new[:-1]):
            moved.add(slab)
            for other in set(range(count)) - moved:
                assert new[slab + 1] <= old[other] or old[other + 1] <= new[slab] or new[slab] == new[slab + 1]
        assert len(moved) == count


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_16_bit_values_and_no_state(dtype: torch.dtype) -> None:
    dense, mask = random_case("bits", 61, 33, density=0.3)
    keys, scores = candidates(mask, 0.5)
    assert_same(dense, mask, "bits", keys, scores, 100, 100, per_weight=0, dtype=dtype)


@pytest.mark.parametrize(
    ("keys", "scores", "drop", "grow", "message"),
    [
        ([0, 1], [1.0, 1.0], 5, 2, "drop = 5, expected 0 <= drop <= 4 (the number of kept weights)"),
        ([1, 12], [1.0, 1.0], 1, 1, "keys[1] = 12, expected 0 <= key < 12 (rows * dim)"),
        ([1, 1], [1.0, 1.0], 1, 1, "keys[1] = 1 follows 1, expected ascending keys without duplicates"),
        ([1, 5], [1.0, 1.0], 1, 1, "keys[1] = 5 is a kept weight, expected keys of slots that are not kept"),
        ([1, 2], [1.0, float("nan")], 1, 1, "scores[1] is nan, expected finite scores"),
        ([1, 2], [1.0, 1.0], 0, 1, "5 weights would be kept, but capacity is 4; drop more or grow less"),
        ([1, 2], [1.0], 1, 1, "scores has 1 entries, expected 2 as keys"),
        ([1, 2], [1.0, 1.0], 1, -1, "grow = -1, expected grow >= 0"),
    ],
)  # fmt: skip
def test_a_bad_request_is_named_and_nothing_changes(
    keys: list[int], scores: list[float], drop: int, grow: int, message: str
) -> None:
    dense = torch.eye(3, 4)
    dense[2, 0] = 1
    table = on_triton(PackedTable.from_dense(dense, kind="bits"))
    before = [tensor.clone() for tensor in table.state_dict().values()]
    arguments = on_device(torch.tensor(keys), torch.tensor(scores))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ops.prune_regrow_(table, None, *arguments, drop=drop, grow=grow)
    assert f"prune_regrow_: {message}" in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, table.state_dict().values(), strict=True))


def test_nan_among_the_weights_is_named_and_nothing_changes() -> None:
    dense, mask = random_case("bits", 20, 33, density=0.4)
    table = on_triton(PackedTable.from_dense(dense, mask))
    table.values[11] = float("nan")
    keys, scores = on_device(*candidates(mask, 0.5))
    before = table.index.clone()
    with pytest.raises(ValueError, match="prune_regrow_: 1 kept weights are NaN, the first at position 11"):
        ops.prune_regrow_(table, None, keys, scores, drop=3, grow=3)
    assert torch.equal(table.index, before)
