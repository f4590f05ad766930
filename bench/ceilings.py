"""What the machine can do: stream and random-gather bandwidth, measured before the providers with the same threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from recsparse import _native

from . import machine, memory
from .registry import Traffic
from .rows import CEILING, result_row
from .timing import WATCHES, percentiles

LINES = (64, 128, 256)
_MIN_SIZE = 1 << 20
_MEMORY = 1 << 30
_GATHERS = 1 << 18
_AHEAD = (8, 16, 32, 64, 128)  # prefetch distances that are tried
_REPEATS = 5
_MIN_SECONDS = 0.02


def _times(call: Callable[[int], object], device: str) -> list[float]:
    """Microseconds of at least ``_REPEATS`` calls; a short one is repeated for longer, to get past waking threads."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < _REPEATS or time.perf_counter() - begin < _MIN_SECONDS:
        times.append(WATCHES[device](lambda: call(len(times))))
    return times


class Ceilings:
    """Bandwidths in GB/s (1e9 bytes a second), the best of a few calls, measured once for each size and remembered.

    They are measured on arrays of about the size that a provider works on (powers of two), so that a small table is
    compared with what the caches give and a large one with memory, for which one size stands: 1 GiB, or eight times the
    last-level cache. On the CPU all are those of ``threads`` threads: one object for one number of threads, which the
    caller has set in torch. On a GPU a gather also writes the rows one after the other, for it cannot keep them, and
    these bytes count. Needs the native library.
    """

    def __init__(self, device: str = "cpu") -> None:
        _native.load()
        self.device = device
        self.threads = torch.get_num_threads()
        self._cache = machine.last_level_cache(device)
        self._copy: dict[int, list[float]] = {}
        self._read: dict[int, list[float]] = {}
        self._gather: dict[tuple[int, int], list[float]] = {}

    def _streams(self, size: int) -> None:
        if size not in self._copy:
            ops = torch.ops.recsparse
            with torch.device(self.device):
                source = memory.empty(size // 2, dtype=torch.uint8).fill_(1)
                target = memory.empty(size // 2, dtype=torch.uint8).fill_(0)
            copy = ops.ceiling_copy_ if self.device == "cpu" else ops.probe_copy_
            self._copy[size] = _times(lambda _: copy(target, source), self.device)
            if self.device == "cpu":
                self._read[size] = _times(lambda _: ops.ceiling_read(source), self.device)

    def _size(self, nbytes: int) -> int:
        memory_size = max(_MEMORY, 1 << (8 * self._cache - 1).bit_length())
        size = max(_MIN_SIZE, 1 << (max(1, nbytes) - 1).bit_length())
        return size if size <= 4 * self._cache else memory_size

    def stream(self, nbytes: int) -> float:
        """The faster of copying (bytes read plus bytes written) and reading arrays of about ``nbytes``."""
        size = self._size(nbytes)
        self._streams(size)
        best = size / min(self._copy[size])
        if size in self._read:
            best = max(best, size / 2 / min(self._read[size]))
        return best / 1e3

    def gather(self, table_bytes: int, line: int) -> float:
        """Reading random aligned lines of ``line`` bytes (64, 128 or 256) from an array of ``table_bytes``."""
        size = self._size(table_bytes)
        if (size, line) not in self._gather:
            with torch.device(self.device):
                table = memory.empty(size, dtype=torch.uint8).fill_(1)
                source = torch.Generator(self.device).manual_seed(0)
                # Together the id sets reach twice the last-level cache, so that a large array is never read from there.
                sets = max(_REPEATS, 2 * self._cache // (self._gathers * line) + 1)
                ids = [torch.randint(size // line, (self._gathers,), generator=source) for _ in range(sets)]
            self._gather[size, line] = self._gather_times(table, ids, line)
        return self._gathered(line) / min(self._gather[size, line]) / 1e3

    @property
    def _gathers(self) -> int:
        """Rows of a call: enough for a GPU to forget the launch."""
        return _GATHERS if self.device == "cpu" else 16 * _GATHERS

    def _gathered(self, line: int) -> int:
        """Bytes that a call moves: on a GPU ids read and rows written too."""
        return self._gathers * (line if self.device == "cpu" else 2 * line + 8)

    def _gather_times(self, table: torch.Tensor, ids: list[torch.Tensor], line: int) -> list[float]:
        ops = torch.ops.recsparse
        if self.device != "cpu":
            rows = table.view(-1, line)
            return _times(lambda repeat: ops.probe_gather(rows, ids[repeat % len(ids)]), self.device)
        tried = [
            _times(lambda repeat, ahead=ahead: ops.ceiling_gather(table, ids[repeat % len(ids)], line, ahead), "cpu")  # type: ignore[misc]
            for ahead in _AHEAD
        ]
        return min(tried, key=min)

    def microseconds(self, traffic: Traffic) -> float:
        """The least time that the traffic takes: that of its gathers, or of all its bytes at the speed of a stream if
        that is more. The two overlap: gathers are bound by misses in flight, streams by bandwidth."""
        if not traffic.total:
            return 0.0
        gather = traffic.gather / self.gather(traffic.table, traffic.line) / 1e3 if traffic.gather else 0.0
        return max(gather, traffic.total / self.stream(traffic.total) / 1e3)

    def rows(self, quick: bool = False) -> list[dict[str, Any]]:
        """Result rows of op ``ceiling``: copy, read and gathers of 64, 128 and 256 bytes, from memory and from the
        last-level cache. ``quick`` leaves memory out: its arrays take seconds to fill."""
        cache = self._cache
        sizes = [("cache", 1 << ((cache // 2).bit_length() - 1))]
        if not quick:
            sizes.insert(0, ("memory", self._size(8 * cache)))
        rows = []
        for level, size in sizes:
            self.stream(size)
            measured = {"copy": (size, self._copy[size])}
            if size in self._read:
                measured["read"] = size // 2, self._read[size]
            for line in LINES:
                self.gather(size, line)
                measured[f"gather {line} B"] = self._gathered(line), self._gather[size, line]
            rows += [self._row(name, level, size, *each) for name, each in measured.items()]
        return rows

    def _row(self, name: str, level: str, size: int, moved: int, times: list[float]) -> dict[str, Any]:
        low, middle, high = percentiles(times)
        shown = f"{level}, arrays of {size >> 20} MiB"
        case = {"bytes": size, "level": level, "device": self.device}
        row = result_row(CEILING, case, shown, "bytes", name, self.threads)
        return row | {
            "backend": self.device,
            "p20_us": low,
            "p50_us": middle,
            "p80_us": high,
            "calls": len(times),
            "units_per_s": moved / min(times) * 1e6,
            "bytes_model": moved,
            "gbps": moved / min(times) / 1e3,
            "resident": level,
            "held_bytes": size,
            "correct": True,
        }
