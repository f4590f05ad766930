"""Philox4x32-10 and the integer recipes on top of it, in plain torch: the slow, obvious twin of `csrc/core`.

All values live in int64 tensors. A product of two 32-bit words fills 64 bits and wraps to a negative int64, so every
shift to the right is masked.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
"""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 0xFFFFFFFF

STREAM_SAMPLE = 3
STREAM_SHUFFLE = 4
STREAM_SYNTHETIC = 5
STREAM_SPLIT = 6
STREAM_ROUNDING = 7


def _high(product: Tensor) -> Tensor:
    return (product >> 32) & MASK


def philox(seed: int, counter: Tensor | int, counter2: Tensor | int, stream: int) -> tuple[Tensor, ...]:
    """Four uniform 32-bit words of each counter.

    Args:
        seed: the 64-bit key.
        counter: 64-bit counter, int64; broadcasts with `counter2`.
        counter2: third 32-bit counter word.
        stream: fourth 32-bit counter word, one value a purpose.

    Returns:
        Four int64 tensors with values in [0, 2^32).
    """
    first, third = torch.broadcast_tensors(
        torch.as_tensor(counter, dtype=torch.int64), torch.as_tensor(counter2, dtype=torch.int64)
    )
    c0, c1, c2, c3 = first & MASK, _high(first), third & MASK, torch.full_like(third, stream)
    k0, k1 = seed & MASK, (seed >> 32) & MASK
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = _high(p1) ^ c1 ^ k0, p1 & MASK, _high(p0) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def bounded32(random: Tensor, n: Tensor | int) -> Tensor:
    """Uniform integer in [0, n) from 32 random bits: the high half of random * n, n <= 2^32."""
    return _high(random * n)


def bounded64(low: Tensor, high: Tensor, n: int) -> Tensor:
    """Uniform integer in [0, n) from 64 random bits, given as two 32-bit words; n < 2^63."""
    n_low, n_high = n & MASK, n >> 32
    upper = high * n_low + _high(low * n_low)
    lower = (upper & MASK) + low * n_high
    return high * n_high + _high(upper) + _high(lower)


def mix32(x: Tensor) -> Tensor:
    """Bijective mixing of 32-bit words (the finaliser of MurmurHash3)."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK
    return x ^ (x >> 16)


def shuffle_keys(seed: int, epoch: int, stream: int = STREAM_SHUFFLE) -> list[int]:
    """The eight round keys of `shuffled`."""
    words = [philox(seed, epoch, block, stream) for block in range(2)]
    return [int(word) for block in words for word in block]


def shuffled(position: Tensor, n: int, keys: list[int]) -> Tensor:
    """Keyed permutation of [0, n): an eight-round Feistel network that is walked until it lands below n again."""
    bits = (n - 1).bit_length()
    low_bits = (bits + 1) // 2
    low_mask, high_mask = (1 << low_bits) - 1, (1 << (bits - low_bits)) - 1
    todo = torch.ones_like(position, dtype=torch.bool)
    while todo.any():
        low, high = position & low_mask, position >> low_bits
        for i in range(0, 8, 2):
            high = high ^ (mix32(low ^ keys[i]) & high_mask)
            low = low ^ (mix32(high ^ keys[i + 1]) & low_mask)
        position = torch.where(todo, (high << low_bits) | low, position)
        todo = position >= n
    return position
