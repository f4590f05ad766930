"""select: the exact k-th largest magnitude of a flat array."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recsparse import _native
from recsparse.backend import resolve_backend
from recsparse.ops._backend import implementation
from recsparse.ops.device_errors import raise_device_errors

_native.load()


class Selection(NamedTuple):
    """What `select` found: kept = {|v| > threshold} and the first `ties` of {|v| == threshold} by position."""

    threshold: float
    ties: int


def select(values: Tensor, k: int, *, backend: str = "auto") -> Selection:
    """Finds which k of `values` have the largest magnitudes, without sorting or copying them.

    Exact for any input and the same for any number of threads. Of equal magnitudes the lower positions are kept, so
    exactly k are. About one pass over `values`, at memory bandwidth
    for float32.

    Args:
        values: float32, float16 or bfloat16 [n], contiguous, without NaN; infinities are ordinary values.
        k: how many to keep, 0 <= k <= n. k = 0 gives threshold infinity and ties 0.
        backend: see `recsparse.backend.resolve_backend`.

    Returns:
        Selection(threshold, ties). The threshold is exactly representable in the dtype of the values.

    Raises:
        TypeError: wrong dtype.
        ValueError: wrong shape, k out of range, or a NaN (says how many there are and where the first is).
    """
    op = implementation(resolve_backend(backend, values.device.type)).select
    threshold, ties = op(values.detach(), k)
    raise_device_errors(values)
    return Selection(threshold.item(), int(ties.item()))


@torch.library.register_fake("recsparse::select")
def _(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return values.new_empty(()), values.new_empty((), dtype=torch.int64)
