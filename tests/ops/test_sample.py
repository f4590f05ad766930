from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsparse import _host
from recsparse.data import Dataset, Interactions, Sampler, SyntheticStream, stream
from recsparse.errors import UserError
from recsparse.ops import sample, sample_synthetic
from recsparse.reference.philox import bounded64, philox, shuffle_keys, shuffled
from recsparse.reference.sample import synthetic_items, synthetic_places


def matrix(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    indptr = torch.tensor([0, *np.cumsum([len(r) for r in rows])], dtype=torch.int64)
    return indptr, torch.tensor([i for r in rows for i in sorted(r)], dtype=torch.int32)


def dataset(rows: list[list[int]], n_items: int) -> Dataset:
    indptr, items = matrix(rows)
    none = Interactions.empty(len(rows))
    return Dataset("small", len(rows), n_items, Interactions(indptr.numpy(), items.numpy()), none, none)


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@st.composite
def positives(draw):
    n_items = draw(st.integers(2, 40))
    row = st.lists(st.integers(0, n_items - 1), min_size=1, max_size=n_items - 1, unique=True)
    return draw(st.lists(row, min_size=1, max_size=12)), n_items


@settings(max_examples=60)
@given(positives(), st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.sampled_from(["users", "interactions"]))
def test_equals_reference_and_is_true(rows_and_items, seed, start, mode):
    rows, n_items = rows_and_items
    ids = torch.arange(len(rows)) * 3 + 1  # rows are not user ids
    arguments = (*matrix(rows), ids, n_items)
    options = {"seed": seed, "start": start, "count": 70, "mode": mode}
    ours = sample(*arguments, **options)
    assert same(ours, sample(*arguments, **options, backend="reference"))
    for user, pos, neg in zip(*(t.tolist() for t in ours), strict=True):
        row = rows[(user - 1) // 3]
        assert pos in row
        assert neg not in row
        assert 0 <= neg < n_items


@pytest.mark.parametrize("mode", ["users", "interactions"])
def test_any_cut_and_thread_count_gives_the_same_draws(mode, threads):
    rng = np.random.default_rng(0)
    rows = [rng.choice(500, rng.integers(1, 60), replace=False).tolist() for _ in range(300)]
    sampler = Sampler(dataset(rows, 500), seed=5, mode=mode)
    whole = sampler.draw(1000, 50_000)
    parts = [sampler.draw(1000 + b, n) for b, n in ((0, 1), (1, 16_383), (16_384, 33_616))]
    assert same(whole, [torch.cat(p) for p in zip(*parts, strict=True)])
    assert torch.equal(
        whole[0][:9], sample(*matrix(rows), torch.arange(300), 500, seed=5, start=1000, count=9, mode=mode)[0]
    )


def test_interactions_mode_visits_every_pair_once_an_epoch():
    rng = np.random.default_rng(1)
    rows = [rng.choice(50, rng.integers(0, 20), replace=False).tolist() for _ in range(40)]
    sampler = Sampler(dataset(rows, 50), seed=2, mode="interactions")
    wanted = sorted((u, i) for u, row in enumerate(rows) for i in row)
    n = sampler.epoch_draws
    orders = []
    for epoch in range(3):
        users, pos, _ = sampler.draw(epoch * n, n)
        pairs = list(zip(users.tolist(), pos.tolist(), strict=True))
        assert sorted(pairs) == wanted
        orders.append(pairs)
    assert orders[0] != orders[1] != orders[2]


def test_frequencies_are_uniform():
    """Chi-square of each kind of choice against uniform; 5 sigma of its distribution."""
    rows = [[0, 3, 4], [1], [2, 5, 6, 7]]
    users, pos, neg = Sampler(dataset(rows, 9), seed=11).draw(0, 90_000)
    counts = [torch.bincount(users, minlength=3)]
    for u, row in enumerate(rows):
        mine = users == u
        counts.append(torch.bincount(pos[mine], minlength=9)[row])
        counts.append(torch.bincount(neg[mine], minlength=9)[[i for i in range(9) if i not in row]])
    for count in counts:
        expected = count.sum() / len(count)
        freedom = len(count) - 1
        assert ((count - expected) ** 2 / expected).sum() <= freedom + 5 * max(1, 2 * freedom) ** 0.5


def test_users_without_positive_or_negative_are_never_drawn():
    rows = [[], [0, 1, 2, 3], [2], [], [0, 3]]
    for mode in ("users", "interactions"):
        sampler = Sampler(dataset(rows, 4), seed=0, mode=mode)
        users, _, _ = sampler.draw(0, 300)
        assert set(users.tolist()) == {2, 4}
        assert sampler.epoch_draws == 3
    with pytest.raises(UserError, match="no user has both"):
        Sampler(dataset([[], [0, 1]], 2), seed=0)


def test_bad_arguments():
    indptr, items = matrix([[0, 2], [1]])
    users = torch.arange(2)
    options = {"seed": 0, "start": 0, "count": 4}
    with pytest.raises(TypeError, match="items has dtype Long, expected Int"):
        sample(indptr, items.long(), users, 5, **options)
    with pytest.raises(TypeError, match="indptr has dtype Int, expected Long"):
        sample(indptr.int(), items, users, 5, **options)
    with pytest.raises(ValueError, match="one dimension"):
        sample(indptr[None], items, users, 5, **options)
    with pytest.raises(ValueError, match="3 entries are expected"):
        sample(indptr[:2], items, users, 5, **options)
    with pytest.raises(ValueError, match="must start at 0 and end at 2"):
        sample(indptr, items[:2], users, 5, **options)
    with pytest.raises(ValueError, match=r"row 0: expected 1 \.\. n_items - 1 positives"):
        sample(indptr, items, users, 2, **options)
    with pytest.raises(ValueError, match=r"row [01]: expected 1 \.\. n_items - 1 positives"):
        sample(torch.tensor([0, 9, 3]), items, users, 20, **{**options, "count": 40})
    with pytest.raises(ValueError, match="nothing to draw from"):
        sample(torch.tensor([0]), items[:0], users[:0], 5, **options)
    with pytest.raises(ValueError, match="must not be negative"):
        sample(indptr, items, users, 5, seed=0, start=-1, count=4)
    with pytest.raises(UserError, match="unknown sampling mode 'pairs'"):
        sample(indptr, items, users, 5, **options, mode="pairs")
    with pytest.raises(UserError, match="seed is -1"):
        sample(indptr, items, users, 5, seed=-1, start=0, count=1)
    with pytest.raises(ValueError, match="backend is 'tpu', expected one of auto, cuda, triton, cpu, reference"):
        sample(indptr, items, users, 5, **options, backend="tpu")
    with pytest.raises(ValueError, match="items is on meta, expected cpu"):
        torch.ops.recsparse.sample.default.redispatch(
            torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), indptr, items.to("meta"), users, 5, 0, 0, 4, 0
        )
    with pytest.raises(ValueError, match="degrees: expected"):
        sample_synthetic(10, 10, min_degree=1, max_degree=10, **options)
    with pytest.raises(UserError, match="expected 1 <= min <= max <= 9"):
        SyntheticStream(10, 10, max_degree=10)


def test_no_draws():
    assert [len(t) for t in sample(*matrix([[0]]), torch.arange(1), 2, seed=0, start=5, count=0)] == [0, 0, 0]


def test_opcheck():
    arguments = (*matrix([[0, 2], [1]]), torch.arange(2), 5, 3, 0, 10)
    for mode in (0, 1):
        torch.library.opcheck(torch.ops.recsparse.sample, (*arguments, mode))
    torch.library.opcheck(torch.ops.recsparse.sample_synthetic.default, (100, 300, 2, 20, 3, 0, 10))


@settings(max_examples=30)
@given(
    st.integers(1, 2**40), st.integers(2, 5000), st.integers(1, 30), st.integers(0, 60), st.integers(0, 2**63 - 1),
    st.integers(0, 2**50),
)  # fmt: skip
def test_synthetic_equals_reference_and_is_true(n_users, n_items, low, spread, seed, start):
    low = min(low, n_items - 1)
    degrees = {"min_degree": low, "max_degree": min(low + spread, n_items - 1)}
    options = {"seed": seed, "start": start, "count": 40}
    ours = sample_synthetic(n_users, n_items, **degrees, **options)
    assert same(ours, sample_synthetic(n_users, n_items, **degrees, **options, backend="reference"))
    users, pos, neg = ours
    places, count = synthetic_places(users, n_items, **degrees, seed=seed)
    items = synthetic_items(places, n_items, seed)
    own = torch.arange(places.shape[1]) < count[:, None]
    assert ((users >= 0) & (users < n_users)).all()
    assert ((items == pos[:, None]) & own).any(1).all()
    assert not ((items == neg[:, None]) & own).any()
    assert ((neg >= 0) & (neg < n_items)).all()


def test_synthetic_stream_is_cut_anywhere(threads):
    sampler = Sampler(stream("tiktok-scale"), seed=1)
    whole = sampler.draw(10**12, 20_000)
    parts = [sampler.draw(10**12 + b, n) for b, n in ((0, 777), (777, 19_223))]
    assert same(whole, [torch.cat(p) for p in zip(*parts, strict=True)])
    with pytest.raises(UserError, match="not materialised"):
        Sampler(stream("tiktok-scale"), seed=1, mode="interactions")


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_shuffle_is_a_permutation(n, seed, epoch):
    order = shuffled(torch.arange(n), n, shuffle_keys(seed, epoch))
    assert torch.equal(order.sort().values, torch.arange(n))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_reference_philox_equals_the_kernels(seed, counter, counter2, stream_number):
    assert tuple(map(int, philox(seed, counter, counter2, stream_number))) == _host.philox(
        seed, counter, counter2, stream_number
    )


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**63 - 1))
def test_bounded64_is_the_high_half(random, n):
    low, high = torch.tensor(random & 0xFFFFFFFF), torch.tensor(random >> 32)
    assert int(bounded64(low, high, n)) == random * n >> 64
