from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsparse.errors import UserError
from recsparse.metrics import METRICS, per_user, ranking_metrics


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    return indptr, np.array([i for r in rows for i in sorted(r)], np.int32)


def test_by_hand():
    ranking = np.array([[4, 1, 7], [2, 0, -1], [5, 6, 8]], np.int32)
    result = ranking_metrics(ranking, *csr([[1, 7, 9, 3], [2], []]), ks=(1, 3))
    first = (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2)
    assert result.users == 2
    assert result.dropped_users == 1
    assert result["recall@3"] == pytest.approx((2 / 4 + 1) / 2)
    assert result["ndcg@3"] == pytest.approx((first + 1) / 2)
    assert result["precision@3"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert result["hit@3"] == 1.0
    assert result["mrr@3"] == pytest.approx((1 / 2 + 1) / 2)
    assert result["recall@1"] == pytest.approx(1 / 2)
    assert result["hit@1"] == pytest.approx(1 / 2)


def test_nobody_has_test_items():
    result = ranking_metrics(np.array([[0], [1]], np.int32), *csr([[], []]), ks=(1,))
    assert result.users == 0
    assert result.dropped_users == 2
    assert set(result.values.values()) == {0.0}


def test_padding_is_never_a_hit():
    result = per_user(np.array([[-1], [-1]], np.int32), *csr([[0, 3], [0]]), ks=(1,))
    assert result["recall@1"].tolist() == [0.0, 0.0]


def test_bad_arguments():
    ranking = np.zeros((2, 3), np.int32)
    with pytest.raises(UserError, match="1 <= K <= 3"):
        ranking_metrics(ranking, *csr([[0], [1]]), ks=(4,))
    with pytest.raises(UserError, match="expected"):
        ranking_metrics(ranking, *csr([[0]]), ks=(1,))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1,), (5, 20), (3, 10, 50)]))
def test_equals_ir_measures(seed, ks):
    ir_measures = pytest.importorskip("ir_measures")
    rng = np.random.default_rng(seed)
    n_users, n_items, width = 12, 60, max(ks)
    ranking = np.stack([rng.permutation(n_items)[:width] for _ in range(n_users)]).astype(np.int32)
    relevant = [rng.choice(n_items, rng.integers(1, 25), replace=False).tolist() for _ in range(n_users)]
    qrels = [ir_measures.Qrel(str(u), str(i), 1) for u, row in enumerate(relevant) for i in row]
    run = [ir_measures.ScoredDoc(str(u), str(i), float(-r)) for u in range(n_users) for r, i in enumerate(ranking[u])]
    ours = ranking_metrics(ranking, *csr(relevant), ks=ks)
    names = {"recall": "R", "ndcg": "nDCG", "precision": "P", "hit": "Success", "mrr": "RR"}
    measures = {f"{m}@{k}": ir_measures.parse_measure(f"{names[m]}@{k}") for m in METRICS for k in ks}
    theirs = ir_measures.calc_aggregate(measures.values(), qrels, run)
    for name, measure in measures.items():
        assert ours[name] == pytest.approx(theirs[measure], abs=1e-9), name
