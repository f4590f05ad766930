"""Named ranges of a run, for profilers: `torch.profiler` on any machine, NVTX (Nsight) where there is a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PREFIX = "recsparse/"


@contextmanager
def span(name: str) -> Iterator[None]:
    """A range `recsparse/NAME` around a block. It costs microseconds: put it around chunks, not around rows."""
    with torch.profiler.record_function(PREFIX + name):
        if not torch.cuda.is_available():
            yield
            return
        torch.cuda.nvtx.range_push(PREFIX + name)
        try:
            yield
        finally:
            torch.cuda.nvtx.range_pop()
