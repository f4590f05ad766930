from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsparse.policies.bet_sampler import DISTRIBUTIONS, ActionSampler, divide

# (users, items, largest size, density): the published sampler cannot end on groups as uneven as the third to fifth at
# densities above users / rows.
SHAPES = [
    (40, 55, 128, 1 / 128),
    (40, 55, 128, 0.1),
    (30, 70, 32, 0.5),
    (5, 200, 64, 0.9),
    (200, 5, 64, 0.45),
    (1, 300, 256, 0.6),
    (60, 40, 16, 1.0),
    (7, 3, 1, 1.0),
]


def sampler(users: int, items: int, largest: int, density: float, seed: int = 0) -> ActionSampler:
    budget = max(users + items, int(density * (users + items) * largest))
    return ActionSampler(users, items, largest, budget, seed)


def test_no_action_of_ten_thousand_breaks_a_rule() -> None:
    shares = []
    for number in range(10_000):
        source = sampler(*SHAPES[number % len(SHAPES)])
        action = source.draw(1 + number // 100, number % 100)
        total = 0
        for sizes, rows in zip(action, (source.users, source.items), strict=True):
            assert len(sizes) == rows
            assert 1 <= sizes.min() <= sizes.max() <= source.largest
            assert (np.diff(sizes) <= 0).all()
            total += int(sizes.sum(dtype=np.int64))
        assert total == source.budget
        if number % len(SHAPES) == 1:
            shares.append(int(action.users.sum(dtype=np.int64)) / source.budget)
    # The share of users is uniform, clipped to what they can take: 40 of 1216 weights at least, 1216 - 55 at most.
    assert min(shares) < 0.05
    assert max(shares) > 0.95
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


def test_rows_of_a_data_set_of_real_size() -> None:
    for density in (0.05, 0.1, 0.2):
        source = sampler(29_858, 40_981, 128, density)
        for number in range(8):
            action = source.draw(3, number)
            assert sum(int(sizes.sum(dtype=np.int64)) for sizes in action) == source.budget
            assert all(1 <= sizes.min() <= sizes.max() <= 128 for sizes in action)


def test_three_integers_bring_an_action_back() -> None:
    def same(one: ActionSampler, other: ActionSampler, iteration: int, number: int) -> bool:
        pairs = zip(one.draw(4, 17), other.draw(iteration, number), strict=True)
        return all(np.array_equal(left, right) for left, right in pairs)

    source = sampler(300, 400, 64, 0.2, seed=5)
    assert same(source, sampler(300, 400, 64, 0.2, seed=5), 4, 17)
    assert not same(source, source, 4, 18)
    assert not same(source, source, 5, 17)
    assert not same(source, sampler(300, 400, 64, 0.2, seed=6), 4, 17)


@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=True), min_size=1, max_size=60),
    st.integers(1, 256),
    st.floats(0, 1),
)
def test_any_budget_is_divided_exactly(weights: list[float], largest: int, share: float) -> None:
    rows = len(weights)
    budget = rows + int(share * rows * (largest - 1))
    sizes = divide(np.sort(np.array(weights))[::-1], budget, largest)
    assert int(sizes.sum(dtype=np.int64)) == budget
    assert 1 <= sizes.min() <= sizes.max() <= largest
    assert (np.diff(sizes) <= 0).all()


def test_sizes_are_in_proportion_and_what_is_left_goes_to_the_largest_fractions() -> None:
    # Of 20 - 4 weights beyond the reserved ones: 8, 4.8, 2.4, 0.8.
    assert divide(np.array([10.0, 6.0, 3.0, 1.0]), 20, 64).tolist() == [9, 6, 3, 2]
    # The first can take 3: the other 13 are cut 6 : 3 : 1, again capped, and so on.
    assert divide(np.array([10.0, 6.0, 3.0, 1.0]), 16, 4).tolist() == [4, 4, 4, 4]
    assert divide(np.array([10.0, 6.0, 3.0, 1.0]), 12, 4).tolist() == [4, 4, 3, 1]
    # Equal fractions: the lower rank.
    assert divide(np.ones(4), 10, 64).tolist() == [3, 3, 2, 2]
    # Nothing to go by.
    assert divide(np.zeros(3), 7, 64).tolist() == [3, 2, 2]
    # A few rows that take everything: the others get what they cannot hold.
    assert divide(np.array([1.0, 1e-300, 0.0]), 30, 16).tolist() == [16, 7, 7]


def test_a_budget_that_cannot_be_met_is_refused() -> None:
    with pytest.raises(ValueError, match=r"budget is 9, expected 10\.\.40"):
        ActionSampler(4, 6, 4, 9, 0)
    with pytest.raises(ValueError, match=r"budget is 41, expected 10\.\.40"):
        ActionSampler(4, 6, 4, 41, 0)


def test_the_distributions_are_the_named_ones() -> None:
    uniform = (np.arange(200_000) + 0.5) / 200_000
    power, normal, exponential, log_normal = (draw for draw, _ in DISTRIBUTIONS)
    assert [widest for _, widest in DISTRIBUTIONS] == [20, 20, 5, 0.5]
    assert power(uniform, 3.0).mean() == pytest.approx(3 / 4, abs=1e-4)  # a / (a + 1)
    wide, narrow = normal(uniform, 20.0), normal(uniform, 0.7)
    assert wide.mean() == pytest.approx(np.sqrt(2 / np.pi), abs=1e-3)  # of |N(0, 1)|
    assert np.isfinite(normal(np.array([0.0, 1 - 2**-53]), 20.0)).all()
    assert 0 <= narrow.min() <= narrow.max() <= 0.7
    # (phi(0) - phi(b)) / (Phi(b) - 1/2)
    expected = (1 - math.exp(-(0.7**2) / 2)) / math.sqrt(2 * math.pi) / (math.erf(0.7 / math.sqrt(2)) / 2)
    assert narrow.mean() == pytest.approx(expected, abs=1e-6)
    assert exponential(uniform, 2.0).mean() == pytest.approx(1 - 2 / np.expm1(2.0), abs=1e-4)
    assert exponential(uniform, 2.0).max() <= 2
    drawn = log_normal(uniform, 0.4)
    assert np.log(drawn).std() == pytest.approx(0.4, abs=1e-3)
    assert drawn.mean() == pytest.approx(np.exp(0.08), abs=1e-3)
