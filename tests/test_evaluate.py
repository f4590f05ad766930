from __future__ import annotations

import numpy as np
import pytest
import torch

from recsparse.data import Dataset, Interactions
from recsparse.errors import UserError
from recsparse.evaluate import by_popularity, evaluate, popularity_baseline, rank
from recsparse.metrics import ranking_metrics
from recsparse.table import PackedTable


def csr(rows: list[list[int]]) -> Interactions:
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    return Interactions(indptr, np.array([i for r in rows for i in sorted(r)], np.int32))


@pytest.fixture
def data() -> Dataset:
    rng = np.random.default_rng(0)
    parts: list[list[list[int]]] = [[], [], []]
    for u in range(60):
        order = rng.permutation(90).tolist()
        sizes = (rng.integers(1, 20), rng.integers(0, 4), 0 if u % 5 == 0 else rng.integers(1, 9))
        for part, size in zip(parts, sizes, strict=True):
            part.append([order.pop() for _ in range(size)])
    return Dataset("d", 60, 90, *map(csr, parts))


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(60, 8, generator=generator), torch.randn(90, 8, generator=generator)


def by_hand(rows, data: Dataset, split: str, k: int) -> np.ndarray:
    scores = (rows[0] @ rows[1].T).numpy()
    for u in range(data.n_users):
        scores[u, data.train.row(u)] = -np.inf
        if split == "test":
            scores[u, data.valid.row(u)] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_equals_a_full_sort(data, rows, split):
    wanted = data.parts()[split]
    expected = ranking_metrics(by_hand(rows, data, split, 10), wanted.indptr, wanted.items, (5, 10))
    assert evaluate(rows, data, split=split, ks=(5, 10)) == expected
    assert expected.dropped_users > 0


def test_test_ranking_leaves_out_valid_items_only_when_it_should(data, rows):
    ranking = rank(rows, data, np.arange(60), 60, split="test")
    assert all(not set(ranking[u].tolist()) & set(data.valid.row(u).tolist()) for u in range(60))
    with_valid = rank(rows, data, np.arange(60), 60, split="valid")
    assert any(set(with_valid[u].tolist()) & set(data.valid.row(u).tolist()) for u in range(60))
    free = rank(rows, data, np.arange(60), 90, exclude=Interactions.empty(60))
    assert (np.sort(free, axis=1) == np.arange(90)).all()


def test_packed_table(data, rows):
    table = PackedTable.from_dense(torch.cat(rows))
    assert evaluate(table, data, split="test") == evaluate(rows, data, split="test")
    with pytest.raises(UserError, match="the table has 59 rows, expected 60 users"):
        evaluate(PackedTable.from_dense(rows[0][:59]), data)


def test_popularity_baseline(data):
    order = np.argsort(-data.popularity, kind="stable")
    seen = data.train.union(data.valid)
    ranking = np.stack([[i for i in order if i not in set(seen.row(u))][:20] for u in range(60)]).astype(np.int32)
    assert popularity_baseline(data) == ranking_metrics(ranking, data.test.indptr, data.test.items)


def test_popularity_buckets_add_up(data, rows):
    buckets = by_popularity(rows, data, split="test", k=10, buckets=3)
    assert sum(b["items"] for b in buckets) == data.n_items
    assert sum(b["pairs"] for b in buckets) == data.test.nnz
    assert buckets[0]["items"] < buckets[2]["items"]
    ranking = by_hand(rows, data, "test", 10)
    found = sum(len(set(ranking[u].tolist()) & set(data.test.row(u).tolist())) for u in range(60))
    assert sum(b["pairs"] * b["recall"] for b in buckets) == pytest.approx(found)


def test_bad_input(data, rows):
    broken = rows[1].clone()
    broken[5, 3] = float("nan")
    with pytest.raises(UserError, match="cannot rank: item row 5 holds NaN"):
        evaluate((rows[0], broken), data)
    with pytest.raises(UserError, match=r"K is 91; expected 1 \.\. 90"):
        evaluate(rows, data, ks=(91,))
    with pytest.raises(UserError, match=r"item rows are torch.float64"):
        evaluate((rows[0], rows[1].double()), data)
    with pytest.raises(UserError, match=r"user rows are \(60, 8\) but item rows are \(90, 7\)"):
        evaluate((rows[0], rows[1][:, :7]), data, split="test")
    with pytest.raises(UserError, match="unknown split 'train'"):
        evaluate(rows, data, split="train")
    empty = Dataset("e", 60, 90, data.train, Interactions.empty(60), data.test, "paper")
    with pytest.raises(UserError, match="valid has no interactions to evaluate on"):
        evaluate(rows, empty)
