"""Stochastic rounding to 16 bits: by arithmetic on the steps of the type, where the kernels work on bits."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse.reference.philox import MASK, STREAM_ROUNDING, mix32, philox


def rounding_bits(seed: int, step: int, row: Tensor, position: Tensor) -> Tensor:
    """Uniform 32-bit words: those of the `position`-th kept weight of `row` in step `step` (from 1), int64."""
    low, high, _, _ = philox(seed, step, 0, STREAM_ROUNDING)
    key = mix32(mix32((row & MASK) ^ low) ^ (row >> 32) ^ high)
    return mix32((key + position * 0x9E3779B9) & MASK)


def round_stochastic(x: Tensor, dtype: torch.dtype, random: Tensor) -> Tensor:
    """float32 `x` rounded to a neighbour in `dtype`, away from zero with a probability equal to its distance.

    The random word decides by its low bits: 16 of them for bfloat16, 13 for float16 and 21 below its normal numbers.
    Finite numbers stay finite.
    """
    if dtype == torch.float32:
        return x
    info = torch.finfo(dtype)
    magnitude = x.double().abs().clamp(max=info.max)
    smallest = info.smallest_normal
    exponent = torch.frexp(magnitude.clamp(min=smallest)).exponent - 1
    step = torch.ldexp(torch.full_like(magnitude, info.eps), exponent)
    if dtype == torch.float16:
        parts = torch.where(magnitude < smallest, 1 << 21, 1 << 13)
    else:
        parts = torch.full_like(random, 1 << 16)
    whole = (magnitude / step).floor()
    part = ((magnitude / step - whole) * parts).floor().nan_to_num(0).long()
    up = part + (random & (parts - 1)) >= parts
    rounded = torch.copysign((whole + up) * step, x.double()).float()
    return torch.where(x.isfinite(), rounded, x).to(dtype)
