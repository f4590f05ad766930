"""Equal keys brought together: duplicates are summed without atomics, in the same order every time.

A stable sort keeps the occurrences of a key in ascending position. A *segment* is a run of one key. Nothing is read
back to the host: the arrays have room for as many segments as there are keys, and programs beyond the last one leave.

Most segments are short: a program takes a tile of them and walks their occurrences side by side. A segment of more than
`LONG` occurrences (a popular item) would make its neighbours wait; it gets a program of its own, which sums a tile of
occurrences at a time. Which program that is needs no list: the one of the segment's first position that LONG divides.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels.tile import launch

LONG = tl.constexpr(64)


class Segments(NamedTuple):
    """Segments of n keys.

    Attributes:
        keys: [n], ascending.
        order: int64 [n], where each sorted key was.
        number: int64 [n], the segment of each sorted key.
        begin: int64 [n + 1], the first sorted position of each segment; n behind the last one.
    """

    keys: Tensor
    order: Tensor
    number: Tensor
    begin: Tensor


@triton.jit(do_not_specialize=["n"])
def _begin_kernel(keys, number, begin, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + at, mask=at < n, other=0)
    last = tl.load(keys + at - 1, mask=(at > 0) & (at < n), other=0)
    head = (at < n) & ((at == 0) | (key != last))
    tl.store(begin + tl.load(number + at, mask=head, other=0), at, mask=head)


def make_segments(keys: Tensor, limit: int) -> Segments:
    """Segments of int64 `keys` [n] in [0, limit): 32-bit keys take half the passes of a sort."""
    n = keys.numel()
    ordered, order = torch.sort(keys.to(torch.int32) if limit <= 2**31 else keys, stable=True)
    head = torch.ones(n, dtype=torch.bool, device=keys.device)
    if n > 1:
        torch.ne(ordered[1:], ordered[:-1], out=head[1:])
    number = head.cumsum(0).sub_(1)
    begin = torch.full((n + 1,), n, dtype=torch.int64, device=keys.device)
    launch(_begin_kernel, n, 1024, ordered, number, begin, n, BLOCK=1024)
    return Segments(ordered, order, number, begin)


def long_work(n: int) -> int:
    """The work of the launch for the long segments of n keys, LONG a program."""
    return n if n > LONG.value else 0


@triton.jit
def short_segments(keys, begin, first, last, BLOCK: tl.constexpr):
    """(key int64, first position, occurrences) of a tile of the segments [first, last); 0 occurrences of a long one."""
    segment = first + tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = segment < last
    head = tl.load(begin + segment, mask=live, other=0)
    count = tl.load(begin + segment + 1, mask=live, other=0) - head
    count = tl.where(count > LONG, 0, count)
    return tl.load(keys + head, mask=count > 0, other=0).to(tl.int64), head, count


@triton.jit
def long_segment(keys, number, begin, first, n):
    """The same of this program's long segment, [1] each. Positions are those from `first` to `first + n`."""
    at = first + tl.program_id(0).to(tl.int64) * LONG + tl.zeros([1], tl.int64)
    segment = tl.load(number + at, mask=at < first + n, other=0)
    head = tl.load(begin + segment, mask=at < first + n, other=0)
    count = tl.load(begin + segment + 1, mask=at < first + n, other=0) - head
    count = tl.where((count > LONG) & (at - head < LONG), count, 0)
    return tl.load(keys + head, mask=count > 0, other=0).to(tl.int64), head, count


@triton.jit
def sum_rows(
    source, order, shift, head, count, offset, width,
    BLOCK: tl.constexpr, ACROSS: tl.constexpr, STRIDE: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Sums over each segment of rows of `source` [.., STRIDE], in float32 (float64 of float64): [BLOCK, COLS].

    The row of sorted position p is order[p] - shift; its columns [offset, offset + COLS) are read, those below `width`
    [BLOCK]. ACROSS 1: BLOCK short segments, each in ascending position, so with the bits of a plain loop. Else one long
    segment (BLOCK 1), ACROSS occurrences at a time.
    """
    kind: tl.constexpr = tl.float64 if source.dtype.element_ty == tl.float64 else tl.float32
    column = offset + tl.arange(0, COLS)[None, :]
    inside = column < width[:, None]
    total = tl.zeros([BLOCK * ACROSS, COLS], kind)
    step = tl.arange(0, ACROSS) if ACROSS > 1 else tl.zeros([BLOCK], tl.int32)
    for done in range(0, tl.max(count), ACROSS):
        # Compared twice: a tile made from the mask of the places is compiled to invalid code by Triton 3.6.
        have = (done + step)[:, None] < count[:, None]
        place = tl.load(order + head + done + step, mask=done + step < count, other=0) - shift
        row = tl.load(source + place[:, None] * STRIDE + column, mask=have & inside, other=0)
        total += row.to(kind)
    if ACROSS > 1:
        total = tl.sum(total, 0)[None, :]
    return total
