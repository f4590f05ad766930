"""Decoding of packed rows into tiles: the device side of `csrc/core/row_layout.h` and `rows.h`.

A program works on a tile [rows, columns]. Whatever the index kind, a row becomes its start and its mask words, and from
the words every column knows at once whether it is kept and at which place of the row: its rank, a popcount of the mask
below it. So gathers are masked loads at start + rank, and no column waits for another one.

Index arrays come as int32 (a view of the int64 tensor): mask words are 32 bits wide, and a block is one cache line of
16 words, or two.
"""

from __future__ import annotations

import triton
import triton.language as tl

FULL = tl.constexpr(0)
PREFIX = tl.constexpr(1)
BITS = tl.constexpr(2)
COLS8 = tl.constexpr(3)


@triton.jit
def popcount(x):
    """Set bits of uint32 words. LLVM knows the idiom: it compiles to one `popc`."""
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def low_bits(n):
    """uint32 words whose low n bits are set, n clamped to 0..32."""
    n = tl.minimum(tl.maximum(n, 0), 32).to(tl.uint32)
    one = (n * 0 + 1).to(tl.uint32)
    return tl.where(n == 32, 0xFFFFFFFF, (one << (n & 31)) - 1).to(tl.uint32)


@triton.jit
def _line(index, rows, live, PER_BLOCK: tl.constexpr, BLOCK_WORDS: tl.constexpr):
    """The block of each row: address, place of the row in it, base, and its words uint32 [rows, BLOCK_WORDS]."""
    block = rows // PER_BLOCK
    within = (rows - block * PER_BLOCK).to(tl.int32)
    line = index + block * BLOCK_WORDS
    slot = tl.arange(0, BLOCK_WORDS)
    words = tl.load(line[:, None] + slot[None, :], mask=live[:, None], other=0).to(tl.uint32, bitcast=True)
    low = tl.load(line, mask=live, other=0).to(tl.uint32, bitcast=True).to(tl.int64)
    high = tl.load(line + 1, mask=live, other=0).to(tl.int64)
    return line, within, low | (high << 32), words


@triton.jit
def _lengths(index, rows, live, DIM: tl.constexpr):
    """Start and count of rows of the kinds that store lengths."""
    PER_BLOCK: tl.constexpr = 56 if DIM < 256 else 28
    WIDTH: tl.constexpr = 8 if DIM < 256 else 16  # bits of a length
    PER_WORD: tl.constexpr = 32 // WIDTH
    line, within, base, words = _line(index, rows, live, PER_BLOCK, 16)
    slot = tl.arange(0, 16) - 2
    before = words & low_bits((within[:, None] - PER_WORD * slot[None, :]) * WIDTH)
    before = tl.where(slot[None, :] >= 0, before, 0)
    if DIM < 256:
        before = (before & 0x00FF00FF) + ((before >> 8) & 0x00FF00FF)
    total = tl.sum(((before & 0xFFFF) + (before >> 16)).to(tl.int32), 1)
    own = tl.load(line + 2 + within // PER_WORD, mask=live, other=0).to(tl.uint32, bitcast=True)
    count = (own >> ((within % PER_WORD) * WIDTH).to(tl.uint32)) & ((1 << WIDTH) - 1)
    return base + total, count.to(tl.int32)


@triton.jit
def or_bits(bit_columns, have, WORDS: tl.constexpr):
    """Mask words uint32 [rows, WORDS] with the bits of columns int32 [rows, n] where `have`; no column twice."""
    word = tl.arange(0, WORDS)
    one = tl.where(have, 1, 0).to(tl.uint32)
    bits = one << (bit_columns & 31).to(tl.uint32)
    parts = tl.where((bit_columns >> 5)[:, :, None] == word[None, None, :], bits[:, :, None], 0)
    return tl.sum(parts, 1).to(tl.uint32)


@triton.jit
def span(index, rows, live, KIND: tl.constexpr, DIM: tl.constexpr):
    """(start int64, count int32) of int64 `rows`; 0 where not `live`. Reads one cache line a row."""
    if KIND == FULL:
        start = tl.where(live, rows * DIM, 0)
        count = tl.where(live, DIM, 0).to(tl.int32)
    elif KIND == BITS:
        W: tl.constexpr = (DIM + 31) // 32
        BLOCK_WORDS: tl.constexpr = 32 if W == 5 or W == 8 else 16
        _, within, base, words = _line(index, rows, live, (BLOCK_WORDS - 2) // W, BLOCK_WORDS)
        slot = tl.arange(0, BLOCK_WORDS)[None, :] - 2
        before = (within * W)[:, None]
        ones = popcount(words)
        start = base + tl.sum(tl.where((slot >= 0) & (slot < before), ones, 0), 1)
        count = tl.sum(tl.where((slot >= before) & (slot < before + W), ones, 0), 1)
    else:
        start, count = _lengths(index, rows, live, DIM)
    return start, count


@triton.jit
def decode(index, cols, rows, live, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr):
    """Where rows lie and what they keep.

    Args:
        index, cols: of the table; index as int32 words.
        rows: int64 [n] row ids.
        live: bool [n]; a row that is not keeps nothing, and nothing is read for it.
        WORDS: mask words of a row, rounded up to a power of two.

    Returns:
        (start int64 [n], mask words uint32 [n, WORDS]).
    """
    word = tl.arange(0, WORDS)
    if KIND == BITS:
        W: tl.constexpr = (DIM + 31) // 32
        BLOCK_WORDS: tl.constexpr = 32 if W == 5 or W == 8 else 16
        line, within, base, block = _line(index, rows, live, (BLOCK_WORDS - 2) // W, BLOCK_WORDS)
        slot = tl.arange(0, BLOCK_WORDS)[None, :] - 2
        before = (within * W)[:, None]
        start = base + tl.sum(tl.where((slot >= 0) & (slot < before), popcount(block), 0), 1)
        own = line[:, None] + 2 + before + word[None, :]
        words = tl.load(own, mask=live[:, None] & (word < W)[None, :], other=0).to(tl.uint32, bitcast=True)
    else:
        start, count = span(index, rows, live, KIND, DIM)
        if KIND == COLS8:
            lane = tl.arange(0, 32)
            words = tl.zeros([rows.shape[0], WORDS], tl.uint32)
            for first in range(0, tl.max(count), 32):
                place = (first + lane)[None, :]
                have = place < count[:, None]
                column = tl.load(cols + start[:, None] + place, mask=have, other=0).to(tl.int32)
                words += or_bits(column, have, WORDS)
        else:
            words = low_bits(count[:, None] - 32 * word[None, :])
    return start, words


@triton.jit
def expand(words, WORDS: tl.constexpr):
    """(kept bool, rank int32), both [rows, 32 * WORDS]: rank counts the kept columns below each column."""
    lane = tl.arange(0, 32).to(tl.uint32)[None, None, :]
    ones = popcount(words)
    below = tl.cumsum(ones, 1) - ones
    word = words[:, :, None]
    kept = ((word >> lane) & 1) != 0
    rank = below[:, :, None] + popcount(word & ((lane * 0 + 1 << lane) - 1))
    shape: tl.constexpr = [words.shape[0], 32 * WORDS]
    return tl.reshape(kept, shape), tl.reshape(rank, shape)


@triton.jit
def words_of(kept, WORDS: tl.constexpr):
    """The inverse of `expand`: mask words uint32 [rows, WORDS] of bool [rows, 32 * WORDS]."""
    lane = tl.arange(0, 32).to(tl.uint32)[None, None, :]
    bits = tl.reshape(kept, [kept.shape[0], WORDS, 32]).to(tl.uint32)
    return tl.sum(bits << lane, 2).to(tl.uint32)
