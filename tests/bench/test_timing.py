from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from recsparse.bench.registry import Traffic, Trial
from recsparse.bench.timing import BURST, LEAD_IN, MIN_CALLS, interleave, percentiles


class FakeClock:
    """Nanoseconds that pass only when a trial says so."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[tuple[str, int]] = []

    def watch(self, call: Callable[[], object]) -> float:
        start = self.now
        call()
        return (self.now - start) / 1000

    def trial(self, name: str, microseconds: int, before: int | None = None) -> Trial:
        def spend(amount: int, label: str) -> Callable[[int], None]:
            def act(number: int) -> None:
                self.calls.append((label, number))
                self.now += amount * 1000

            return act

        trial = Trial(spend(microseconds, name), lambda number: None, Traffic(), 0, 1)
        if before is not None:
            trial.before = spend(before, name + " before")
        return trial


def test_providers_take_turns() -> None:
    clock = FakeClock()
    trials = [clock.trial(name, 10) for name in "ABC"]
    samples = interleave(trials, n_sets=24, rounds=30, budget_s=1.0, watch=clock.watch)
    assert all(each.times == [10.0] * 30 for each in samples)
    turns = [letter for _ in range(30 // BURST) for letter in "ABC"]
    assert [name for name, _ in clock.calls[3:]] == [name for name in turns for _ in range(LEAD_IN + BURST)]


def test_the_first_calls_of_a_turn_do_not_count() -> None:
    clock = FakeClock()
    disturbed, previous = 500, ""

    def trial(name: str) -> Trial:
        def run(number: int) -> None:
            nonlocal previous
            clock.now += (10 if previous == name else disturbed) * 1000
            previous = name

        return Trial(run, lambda number: None, Traffic(), 0, 1)

    samples = interleave([trial("A"), trial("B")], n_sets=24, rounds=20, budget_s=1.0, watch=clock.watch)
    for each in samples:
        assert set(each.times) == {10.0}
        assert each.first == [float(disturbed)] * (20 // BURST)


def test_a_provider_goes_through_all_sets_and_starts_where_no_other_does() -> None:
    clock = FakeClock()
    interleave([clock.trial(name, 1) for name in "ABC"], n_sets=24, rounds=24, budget_s=1.0, watch=clock.watch)
    for name in "ABC":
        numbers = [number for label, number in clock.calls if label == name]
        assert set(numbers) == set(range(24))
        assert all(after == (before + 1) % 24 for before, after in itertools.pairwise(numbers))
    assert len({number for _, number in clock.calls[:3]}) == 3


def test_a_slow_provider_sits_out_rounds_evenly_and_still_gets_its_minimum() -> None:
    clock = FakeClock()
    fast, slow = clock.trial("fast", 10), clock.trial("slow", 100_000)
    samples = interleave([fast, slow], n_sets=24, rounds=100, budget_s=1.0, watch=clock.watch)
    assert len(samples[0].times) == 100
    assert MIN_CALLS <= len(samples[1].times) <= 6
    assert not samples[1].first
    places = [place for place, (name, _) in enumerate(clock.calls) if name == "slow"][1:]
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert max(gaps) - min(gaps) <= 2 * (LEAD_IN + BURST)

    crawl = interleave([clock.trial("crawl", 5_000_000)], n_sets=24, rounds=100, budget_s=0.1, watch=clock.watch)
    assert MIN_CALLS <= len(crawl[0].times) <= MIN_CALLS + 1


def test_preparation_is_not_timed_but_counts_against_the_budget() -> None:
    clock = FakeClock()
    samples = interleave([clock.trial("A", 10, before=90_000)], n_sets=3, rounds=100, budget_s=1.0, watch=clock.watch)
    assert set(samples[0].times) == {10.0}
    assert len(samples[0].times) < 15
    assert [name for name, _ in clock.calls[:2]] == ["A before", "A"]
    assert clock.calls[0][1] == clock.calls[1][1]


def test_percentiles_interpolate() -> None:
    assert percentiles([5.0, 1.0, 3.0, 2.0, 4.0]) == pytest.approx((1.8, 3.0, 4.2))
    assert percentiles([7.0]) == (7.0, 7.0, 7.0)
