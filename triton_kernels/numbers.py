"""Rounding of float32 to the type that weights are stored in; bit-equal to `csrc/core/half.h` and `rounding.h`."""

from __future__ import annotations

import triton
import triton.language as tl

STREAM_INIT_VALUE = tl.constexpr(1)
STREAM_INIT_MASK = tl.constexpr(2)
STREAM_SAMPLE = tl.constexpr(3)
STREAM_SHUFFLE = tl.constexpr(4)
STREAM_SYNTHETIC = tl.constexpr(5)
STREAM_ROUNDING = tl.constexpr(7)


@triton.jit
def narrow(x, kind: tl.constexpr):
    """The nearest `kind`, ties to even."""
    if kind == tl.bfloat16:
        # In integers, because the interpreter's own conversion truncates. What is left is exact in either.
        bits = x.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where((bits & 0x7FFFFFFF) > 0x7F800000, bits | 0x400000, rounded).to(tl.float32, bitcast=True)
    return x.to(kind)


@triton.jit
def philox(seed, counter, counter2, stream: tl.constexpr):
    """Four uniform uint32 tensors of int64 `counter` and 32-bit `counter2`, which broadcast."""
    zero = counter * 0 + counter2 * 0
    low = (counter + zero).to(tl.uint32)
    high = ((counter + zero) >> 32).to(tl.uint32)
    third = (counter2 + zero).to(tl.uint32)
    return tl.philox(seed, low, high, third, (zero + stream).to(tl.uint32))


@triton.jit
def mix32(x):
    """Bijective mixing of uint32 words (the finaliser of MurmurHash3)."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def rounding_keys(seed, step, rows):
    """uint32 key of each of int64 `rows` in step number `step` (from 1), an int64 scalar."""
    low, high, _, _ = philox(seed, step + tl.zeros([1], tl.int64), tl.zeros([1], tl.int64), STREAM_ROUNDING)
    first = mix32(rows.to(tl.uint32) ^ low)
    return mix32(first ^ (rows >> 32).to(tl.uint32) ^ high)


@triton.jit
def round_stochastic(x, kind: tl.constexpr, key, position):
    """float32 x to `kind`, up with the probability of its distance; `position` of the weight among its row's."""
    if kind == tl.float32:
        result = x
    else:
        random = mix32(key + position.to(tl.uint32) * 0x9E3779B9)
        bits = x.to(tl.uint32, bitcast=True)
        sign, magnitude = bits & 0x80000000, bits & 0x7FFFFFFF
        if kind == tl.bfloat16:
            capped = tl.minimum(magnitude, 0x7F7F0000)
            rounded = (capped + (random & 0xFFFF)) & 0xFFFF0000
        else:
            capped = tl.minimum(magnitude, 0x477FE000)
            rounded = (capped + (random & 0x1FFF)) & 0xFFFFE000
            # Below 2^-14 the steps are 2^-24 wide and have 2^21 parts.
            tiny = tl.minimum(capped, 0x387FFFFF).to(tl.float32, bitcast=True)
            parts = (tiny * 35184372088832.0).to(tl.int32).to(tl.uint32)
            small = (((parts + (random & 0x1FFFFF)) >> 21).to(tl.float32) * 5.9604644775390625e-8).to(
                tl.uint32, bitcast=True
            )
            rounded = tl.where(capped < 0x38800000, small, rounded)
        rounded = tl.where(magnitude >= 0x7F800000, bits, rounded | sign)
        result = rounded.to(tl.float32, bitcast=True).to(kind)
    return result
