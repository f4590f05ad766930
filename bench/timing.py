"""Interleaved timing: the providers of a case take turns, so drift of a shared machine hits all alike.

A turn is a short burst of calls, and only the calls after the first few count. The first calls after another provider
pay for what that one left behind: its worker threads may still spin on a core, and its data have pushed this one's
code, page tables and thread stacks out of the caches (docs/benchmarking.md has the figures). The input set changes
with every call, so the table's lines stay as cold as the case says. What a first call costs is kept too.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from .registry import Trial

MIN_CALLS = 3
LEAD_IN = 3  # calls of a turn that do not count
BURST = 5  # calls of a turn that count
LONG_CALL_S = 0.01  # calls that take longer need no lead-in: what others left behind is a fraction of a millisecond


def host_us(call: Callable[[], object]) -> float:
    """Microseconds of a call by the host's clock."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def device_us(call: Callable[[], object]) -> float:
    """Microseconds between two events of the GPU's current stream around a call, which is over when this returns. The
    stream is empty before, so what the host needs for the launches counts where it is longer than the kernels."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) * 1e3


WATCHES = {"cpu": host_us, "cuda": device_us}
"""How a call is timed, by type of device."""


@dataclass
class Samples:
    """Microseconds of the calls that count, and of the first call of each turn."""

    times: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


def interleave(
    trials: Sequence[Trial],
    *,
    n_sets: int,
    rounds: int,
    budget_s: float,
    watch: Callable[[Callable[[], object]], float] = host_us,
) -> list[Samples]:
    """Time the trials in turns and return the samples of each, at most about ``rounds`` calls.

    A provider goes through the ``n_sets`` input sets in order, each provider starting elsewhere, so that none finds in
    the cache what another has just read. Each may spend an equal share of ``budget_s`` seconds, paced over the turns:
    a slow one sits out turns instead of being timed in one stretch. All get at least ``MIN_CALLS`` calls.
    """
    samples = [Samples() for _ in trials]
    spent = [0.0] * len(trials)
    allowed = [budget_s / max(1, len(trials))] * len(trials)
    following = [index * n_sets // max(1, len(trials)) for index in range(len(trials))]
    short = [True] * len(trials)

    def call(index: int) -> float:
        trial, number = trials[index], following[index] % n_sets
        following[index] += 1
        before = trial.before
        prepared = 0.0 if before is None else watch(lambda: before(number))
        taken = watch(lambda: trial.run(number))
        spent[index] += (prepared + taken) / 1e6
        return taken

    def take_turn(index: int) -> None:
        if short[index]:
            samples[index].first.append(call(index))
            for _ in range(LEAD_IN - 1):
                call(index)
        for _ in range(BURST if short[index] else 1):
            samples[index].times.append(call(index))

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for index in range(len(trials)):
            short[index] = call(index) < LONG_CALL_S * 1e6
            allowed[index] = max(allowed[index], MIN_CALLS * spent[index])
            spent[index] = 0.0
        turns = -(-rounds // BURST)
        for turn in range(turns):
            for index in range(len(trials)):
                if spent[index] <= allowed[index] * turn / turns:
                    take_turn(index)
        while any(len(each.times) < MIN_CALLS for each in samples):
            for index, each in enumerate(samples):
                if len(each.times) < MIN_CALLS:
                    take_turn(index)
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
