from __future__ import annotations

from typing import Any

import pytest

from recsparse.bench import machine
from recsparse.bench.registry import Case, Traffic, Trial
from recsparse.bench.run import resident


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "last_level_cache", lambda device="cpu": 1000)


def trial(held: int, moved: int, **more: Any) -> Trial:
    return Trial(lambda number: None, lambda number: None, Traffic(gather=moved), held, 1, **more)


@pytest.mark.parametrize(
    ("held", "moved", "n_sets", "ids", "where"),
    [
        (900, 10**6, 24, "uniform", "cache"),  # the table fits
        (10**6, 40, 24, "uniform", "cache"),  # what 24 calls touch of a large table fits
        (10**6, 42, 24, "uniform", "memory"),
        (10**6, 10**4, 4, "zipf:1.05", "mixed"),
        (900, 10**4, 4, "zipf:1.05", "cache"),
    ],
)
def test_where_the_data_are_found(held: int, moved: int, n_sets: int, ids: str, where: str) -> None:
    assert resident(Case(ids=ids), n_sets, trial(held, moved)) == where


def test_a_call_of_many_steps_goes_through_the_sets_faster() -> None:
    assert resident(Case(), 64, trial(10**6, 64 * 20, steps=64)) == "memory"
    assert resident(Case(), 64, trial(10**6, 64 * 15, steps=64)) == "cache"
