"""The k-th largest magnitude by sorting everything."""

from __future__ import annotations

import torch
from torch import Tensor


def select(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Threshold and ties of `recsparse.ops.select`, for `values` without NaN."""
    if k == 0:
        return values.new_full((), float("inf")), torch.tensor(0)
    magnitude = values.abs()
    threshold = torch.sort(magnitude, descending=True).values[k - 1]
    return threshold, k - (magnitude > threshold).sum()


def kept(values: Tensor, threshold: float, ties: int) -> Tensor:
    """bool [n]: which values a selection keeps."""
    magnitude = values.abs()
    equal = magnitude == threshold
    return (magnitude > threshold) | (equal & (equal.cumsum(0) <= ties))
