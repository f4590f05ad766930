"""select in Triton: the exact k-th largest magnitude of a flat array, without a sort, a copy or a wait for the device.

1. A strided sample of at most 2^18 magnitudes, sorted, gives a bracket that holds the k-th one almost surely and about
   a hundredth of the others.
2. One pass over the values (their bytes, read once) counts what lies above, at and inside the bracket and writes what
   is inside, in no order: 1 to 3 % of the bytes.
3. Four digits of eight bits by histogram, over what is inside. If the bracket missed, or held too many, over all
   values: the kernels read from the device where they have to look, so a miss costs time and never the result.

Counts are integers, so atomics do not make the result depend on an order. Magnitudes are compared as the integers that
their bits are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.tile import bits_of, launch

SAMPLE = 1 << 18
MARGIN = 4  # standard deviations of the sample's rank on either side of the bracket
BLOCK = 4096
ROOM_SHARE = 32  # of the values have room beside them
PROGRAMS = 1024  # of the histograms: they walk over what there is to count

# Places in the int64 tensor `found`: counts of the pass, then the state of the digits.
ABOVE = tl.constexpr(0)  # greater than the bracket
AT_HIGH = tl.constexpr(1)
INSIDE = tl.constexpr(2)
AT_LOW = tl.constexpr(3)
NANS = tl.constexpr(4)
SOURCE = tl.constexpr(5)  # 0 nothing to do, 1 the candidates, 2 all values
PREFIX = tl.constexpr(6)  # digits found so far
NEED = tl.constexpr(7)  # rank of the wanted one among those that begin with the prefix
FOUND = 8


@triton.jit
def _keys(values, at, live):
    """int32 magnitudes of values given as integers; -1 beyond the end."""
    mask: tl.constexpr = 0x7FFFFFFF if values.dtype.element_ty == tl.int32 else 0x7FFF
    return tl.where(live, tl.load(values + at, mask=live, other=0).to(tl.int32) & mask, -1)


@triton.jit(do_not_specialize=["n", "room"])
def _split_kernel(values, bracket, found, candidates, n, room, INFINITY: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < n
    key = _keys(values, at, live)
    low = tl.load(bracket)
    high = tl.load(bracket + 1)
    inside = (key > low) & (key < high) & live
    tl.atomic_add(found + ABOVE, tl.sum((key > high).to(tl.int64)), sem="relaxed")
    tl.atomic_add(found + AT_HIGH, tl.sum((key == high).to(tl.int64)), sem="relaxed")
    tl.atomic_add(found + AT_LOW, tl.sum(((key == low) & (low < high) & live).to(tl.int64)), sem="relaxed")
    nans = tl.sum((key > INFINITY).to(tl.int64))
    if nans > 0:
        tl.atomic_add(found + NANS, nans, sem="relaxed")
    own = inside.to(tl.int32)
    first = tl.atomic_add(found + INSIDE, tl.sum(own).to(tl.int64), sem="relaxed")
    place = first + tl.cumsum(own, 0) - own
    tl.store(candidates + place, key, mask=inside & (place < room))


@triton.jit(do_not_specialize=["k", "room"])
def _decide_kernel(found, bracket, k, room):
    """Where the k-th largest is: a side of the bracket, inside it, or outside."""
    above = tl.load(found + ABOVE)
    at_high = tl.load(found + AT_HIGH)
    inside = tl.load(found + INSIDE)
    at_low = tl.load(found + AT_LOW)
    need = k - above
    source = tl.where(need <= 0, 2, 0)
    prefix = tl.load(bracket + 1).to(tl.int64)
    further = need > at_high
    need = tl.where(further, need - at_high, need)
    candidate = further & (need <= inside)
    source = tl.where(candidate, tl.where(inside <= room, 1, 2), source)
    further = further & (need > inside)
    need = tl.where(further, need - inside, need)
    prefix = tl.where(further, tl.load(bracket).to(tl.int64), prefix)
    source = tl.where(further & (need > at_low), 2, source)
    tl.store(found + SOURCE, source.to(tl.int64))
    tl.store(found + PREFIX, tl.where(source == 0, prefix, 0))
    tl.store(found + NEED, tl.where(source == 2, k, need))


@triton.jit
def _count(source, end, histogram, prefix, SHIFT: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.zeros([256], tl.int32)
    stride = tl.num_programs(0).to(tl.int64) * BLOCK
    first = tl.program_id(0).to(tl.int64) * BLOCK
    while first < end:
        at = first + tl.arange(0, BLOCK)
        key = _keys(source, at, at < end)
        counted = (at < end) & ((key >> SHIFT >> 8) == prefix)
        total += tl.histogram((key >> SHIFT) & 255, 256, counted)
        first += stride
    tl.atomic_add(histogram + tl.arange(0, 256), total.to(tl.int64), mask=total > 0, sem="relaxed")


@triton.jit(do_not_specialize=["n"])
def _digit_kernel(values, candidates, found, histogram, n, SHIFT: tl.constexpr, BLOCK: tl.constexpr):
    source = tl.load(found + SOURCE)
    prefix = tl.load(found + PREFIX)
    if source == 1:
        _count(candidates, tl.load(found + INSIDE), histogram, prefix, SHIFT, BLOCK)
    if source == 2:
        _count(values, n.to(tl.int64), histogram, prefix, SHIFT, BLOCK)


@triton.jit
def _pick_kernel(found, histogram):
    if tl.load(found + SOURCE) > 0:
        digit = tl.arange(0, 256)
        count = tl.load(histogram + digit)
        above = tl.sum(count) - tl.cumsum(count, 0)
        need = tl.load(found + NEED)
        own = (above < need) & (need <= above + count)
        tl.store(found + PREFIX, tl.load(found + PREFIX) * 256 + tl.sum(tl.where(own, digit, 0)))
        tl.store(found + NEED, need - tl.sum(tl.where(own, above, 0)))
        tl.store(histogram + digit, tl.zeros([256], tl.int64))


def _bracket(bits: Tensor, k: int, mask: int) -> Tensor:
    """int32 [2]: magnitudes that the k-th largest lies between, almost surely."""
    n = bits.numel()
    size = min(n, SAMPLE)
    keys = (bits[torch.arange(size, device=bits.device) * n // size].to(torch.int32) & mask).sort().values
    share = k / n
    place = int((1 - share) * size)
    margin = int(MARGIN * (share * (1 - share) * size) ** 0.5) + 1
    low = keys[place - margin : place - margin + 1] if place >= margin else keys.new_full((1,), -1)
    high = keys[place + margin : place + margin + 1] if place + margin < size else keys.new_full((1,), 2**31 - 1)
    return torch.cat([low, high])


def magnitude_threshold(values: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """(magnitude of the k-th largest as an integer, values of it to keep, number of NaN): int64 [1] on the device.

    `values` is not empty, 1 <= k <= n.
    """
    bits, n = bits_of(values), values.numel()
    wide = bits.dtype == torch.int32
    mask, infinity = (0x7FFFFFFF, 0x7F800000) if wide else (0x7FFF, 0x7C00 if values.dtype == torch.float16 else 0x7F80)
    bracket = _bracket(bits, k, mask)
    room = min(n, max(BLOCK, n // ROOM_SHARE))
    candidates = torch.empty(room, dtype=torch.int32, device=values.device)
    found = torch.zeros(FOUND, dtype=torch.int64, device=values.device)
    histogram = torch.zeros(256, dtype=torch.int64, device=values.device)
    launch(_split_kernel, n, BLOCK, bits, bracket, found, candidates, n, room, INFINITY=infinity, BLOCK=BLOCK)
    launch(_decide_kernel, 1, 1, found, bracket, k, room)
    for shift in (24, 16, 8, 0):
        work = min(n, PROGRAMS * BLOCK)
        launch(_digit_kernel, work, BLOCK, bits, candidates, found, histogram, n, SHIFT=shift, BLOCK=BLOCK)
        launch(_pick_kernel, 1, 1, found, histogram)
    return (
        found[PREFIX.value : PREFIX.value + 1],
        found[NEED.value : NEED.value + 1],
        found[NANS.value : NANS.value + 1],
    )


def select(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(threshold of the dtype of the values, ties int64), on the device; see `recsparse.ops.select`."""
    check.floating("values", "select", values, check.VALUE_TYPES)
    check.vector("select", "values", values, values.dtype, values.device)
    n = values.numel()
    if not 0 <= k <= n:
        raise ValueError(f"select: k = {k}, expected 0 <= k <= {n} (the number of values)")
    if n == 0:
        return values.new_full((), float("inf")), torch.zeros((), dtype=torch.int64, device=values.device)
    key, ties, nans = magnitude_threshold(values, max(k, 1))
    if values.is_cuda:
        torch._assert_async(nans == 0, "select: a value is NaN, expected numbers")
    elif int(nans):
        at = int(values.isnan().nonzero()[0])
        message = f"select: {int(nans)} of {n} values are NaN, the first at position {at}; expected numbers"
        raise ValueError(message)
    if k == 0:
        return values.new_full((), float("inf")), torch.zeros_like(ties[0])
    integers = torch.int32 if values.dtype == torch.float32 else torch.int16
    return key.to(integers).view(values.dtype)[0], ties[0].clone()
