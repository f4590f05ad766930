"""Bisection by all elements of a tile at once."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def lower_bound(keys, n, wanted):
    """int64: for each of `wanted` the first position of the ascending keys [n] that is not below it."""
    low = wanted * 0
    high = low + n
    while tl.max(high - low) > 0:
        middle = (low + high) // 2
        below = (low < high) & (tl.load(keys + middle, mask=low < high, other=0) < wanted)
        high = tl.where(below, high, middle)
        low = tl.where(below, middle + 1, low)
    return low
