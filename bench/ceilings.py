"""What the machine can do: stream and random-gather bandwidth, measured before the providers with the same threads."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from recsparse import _native

from . import memory
from .registry import Traffic

_MIN_STREAM = 1 << 20
_MAX_STREAM = 1 << 30
_GATHERS = 1 << 18
_REPEATS = 5
_MIN_SECONDS = 0.01


def _best_gbps(nbytes: int, call: Callable[[int], object]) -> float:
    """Best of at least ``_REPEATS`` calls; a short one is repeated for longer, to get past waking threads."""
    best = float("inf")
    begin = time.perf_counter()
    repeat = 0
    while repeat < _REPEATS or time.perf_counter() - begin < _MIN_SECONDS:
        start = time.perf_counter_ns()
        call(repeat)
        best = min(best, time.perf_counter_ns() - start)
        repeat += 1
    return nbytes / best


class Ceilings:
    """Bandwidths in GB/s (1e9 bytes a second), measured on first use and remembered.

    They are measured on arrays of the size that a provider works on, so that a small table is compared with what the
    caches give and a large one with memory. Needs the native library.
    """

    def __init__(self) -> None:
        _native.load()
        self._stream: dict[int, float] = {}
        self._gather: dict[tuple[int, int], float] = {}

    def stream(self, nbytes: int) -> float:
        """The faster of copying (bytes read plus bytes written) and reading arrays of about ``nbytes``."""
        size = min(_MAX_STREAM, max(_MIN_STREAM, 1 << (nbytes - 1).bit_length()))
        if size not in self._stream:
            source = memory.empty(size // 2, dtype=torch.uint8).fill_(1)
            target = memory.empty(size // 2, dtype=torch.uint8).fill_(0)
            copy = _best_gbps(size, lambda _: torch.ops.recsparse.ceiling_copy_(target, source))
            read = _best_gbps(size // 2, lambda _: torch.ops.recsparse.ceiling_read(source))
            self._stream[size] = max(copy, read)
        return self._stream[size]

    def gather(self, table_bytes: int, line: int) -> float:
        """Reading random aligned lines of ``line`` bytes (64, 128 or 256) from an array of ``table_bytes``."""
        lines = max(1, table_bytes // line)
        if (lines, line) not in self._gather:
            table = memory.empty(lines * line, dtype=torch.uint8).fill_(1)
            source = torch.Generator().manual_seed(0)
            ids = [torch.randint(lines, (_GATHERS,), generator=source) for _ in range(_REPEATS)]
            gather = torch.ops.recsparse.ceiling_gather
            self._gather[lines, line] = _best_gbps(
                _GATHERS * line, lambda repeat: gather(table, ids[repeat % _REPEATS], line)
            )
        return self._gather[lines, line]

    def microseconds(self, traffic: Traffic) -> float:
        """Time the traffic takes at the ceilings, gather and stream one after the other."""
        total = 0.0
        if traffic.gather:
            total += traffic.gather / self.gather(traffic.table, traffic.line) / 1e3
        if traffic.stream:
            total += traffic.stream / self.stream(traffic.stream) / 1e3
        return total
