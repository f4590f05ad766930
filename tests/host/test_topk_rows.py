from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsparse import _host


def seen_csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    return indptr, np.array([i for r in rows for i in sorted(r)], np.int32)


def by_sorting(scores: np.ndarray, seen: list[list[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
    items = np.full((len(scores), k), -1, np.int32)
    best = np.full((len(scores), k), -np.inf, np.float32)
    for r, row in enumerate(scores):
        order = [i for i in np.lexsort((np.arange(len(row)), -row)) if i not in set(seen[r])][:k]
        items[r, : len(order)] = order
        best[r, : len(order)] = row[order]
    return items, best


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_a_full_sort(data):
    n_rows, n_items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 300))
    k = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    levels = data.draw(st.sampled_from([2, 5, 1000]))  # few levels: many ties
    scores = rng.integers(-levels, levels, (n_rows, n_items)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    seen = [rng.choice(n_items, rng.integers(0, n_items + 1), replace=False).tolist() for _ in range(n_rows)]
    items, best = _host.topk_rows(scores, *seen_csr(seen), k)
    wanted_items, wanted_best = by_sorting(scores, seen, k)
    assert np.array_equal(items, wanted_items)
    assert np.array_equal(best, wanted_best)


def test_adversarial_order():
    ascending = np.arange(5000, dtype=np.float32)[None]  # every item beats the threshold
    items, _ = _host.topk_rows(ascending, *seen_csr([[4998]]), 3)
    assert items.tolist() == [[4999, 4997, 4996]]
    items, _ = _host.topk_rows(np.zeros((1, 5000), np.float32), *seen_csr([[1]]), 3)
    assert items.tolist() == [[0, 2, 3]]


def test_same_result_for_any_thread_count():
    scores = np.random.default_rng(0).integers(0, 50, (37, 2000)).astype(np.float32)
    seen = seen_csr([list(range(r)) for r in range(37)])
    first = _host.topk_rows(scores, *seen, 20, threads=1)
    for threads in (2, 5, 64):
        other = _host.topk_rows(scores, *seen, 20, threads=threads)
        assert np.array_equal(first[0], other[0])
        assert np.array_equal(first[1], other[1])


@pytest.mark.parametrize("place", [0, 63, 64, 700, 999])
def test_nan_is_an_error_wherever_it_is(place):
    scores = np.random.default_rng(1).random((3, 1000), np.float32)
    scores[1:, place] = np.nan
    with pytest.raises(ValueError, match="NaN, first in row 1"):
        _host.topk_rows(scores, *seen_csr([[place]] * 3), 5, threads=3)


def test_bad_arguments():
    scores, seen = np.zeros((2, 4), np.float32), seen_csr([[], []])
    with pytest.raises(ValueError, match="k must be at least 1"):
        _host.topk_rows(scores, *seen, 0)
    with pytest.raises(ValueError, match="one entry more"):
        _host.topk_rows(scores, *seen_csr([[]]), 1)
    with pytest.raises(ValueError, match="outside items"):
        _host.topk_rows(scores, np.array([0, 0, 5]), np.zeros(1, np.int32), 1)
    with pytest.raises(TypeError):
        _host.topk_rows(scores.astype(np.float64), *seen, 1)


def test_philox_known_answers():
    """Vectors that the Random123 distribution publishes for philox4x32-10."""
    ones = 2**32 - 1
    assert _host.philox(0, 0, 0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert _host.philox(2**64 - 1, 2**64 - 1, ones, ones) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = _host.philox(0x299F31D0A4093822, 0x85A308D3243F6A88, 0x13198A2E, 0x03707344)
    assert pi == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
