"""Interleaved timing: every provider of a case is called in turn, so drift of a shared machine hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

from .registry import Trial

MIN_CALLS = 3


def interleave(
    trials: Sequence[Trial],
    *,
    n_sets: int,
    rounds: int,
    budget_s: float,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[list[float]]:
    """Time the trials round-robin and return, for each, the microseconds of its calls.

    A provider goes through the ``n_sets`` input sets in order, each provider starting elsewhere, so that none finds in
    the cache what another has just read. Each may spend an equal share of ``budget_s`` seconds, paced over
    ``rounds``: a slow one sits out rounds instead of being timed in one stretch. All get at least ``MIN_CALLS`` calls.
    """
    samples: list[list[float]] = [[] for _ in trials]
    spent = [0.0] * len(trials)
    allowed = [budget_s / max(1, len(trials))] * len(trials)
    following = [index * n_sets // max(1, len(trials)) for index in range(len(trials))]

    def call(index: int) -> None:
        trial, number = trials[index], following[index] % n_sets
        following[index] += 1
        begin = clock()
        if trial.before is not None:
            trial.before(number)
        start = clock()
        trial.run(number)
        stop = clock()
        samples[index].append((stop - start) / 1e3)
        spent[index] += (stop - begin) / 1e9

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for index in range(len(trials)):
            call(index)
            samples[index].clear()
            allowed[index] = max(allowed[index], MIN_CALLS * spent[index])
            spent[index] = 0.0
        for turn in range(rounds):
            for index in range(len(trials)):
                if spent[index] <= allowed[index] * turn / rounds:
                    call(index)
        while any(len(times) < MIN_CALLS for times in samples):
            for index, times in enumerate(samples):
                if len(times) < MIN_CALLS:
                    call(index)
    finally:
        if was_enabled:
            gc.enable()
    return samples


def percentiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """20th, 50th and 80th percentile, linearly interpolated."""
    ordered = sorted(samples)

    def at(share: float) -> float:
        position = share * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    return at(0.2), at(0.5), at(0.8)
