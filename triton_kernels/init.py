"""init_index_ and init_values_ in Triton: initial masks and weights as pure functions of (seed, row, column).

Nothing is read but the index: a program draws the random words of a tile [rows, columns] in registers, one Philox block
for every two (values) or four (masks) columns, drawn again by each column because arithmetic is cheaper than a shuffle.
The threshold of a random mask is exact: two histograms of 65,536 bins with integer atomics, whose sums have no order.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.build_index import Masks, empty_masks, make_index, store_words
from recsparse.triton_kernels.numbers import STREAM_INIT_MASK, STREAM_INIT_VALUE, narrow, philox
from recsparse.triton_kernels.pack import place_columns
from recsparse.triton_kernels.rows import decode, expand, low_bits, words_of
from recsparse.triton_kernels.tile import index_words, launch, rows_of, table_shape

FULL, PREFIX, BERNOULLI = range(3)  # `InitStart` in csrc/cpu/init.h
UNIT = 37837.22723720648  # `kNormalUnit` in csrc/core/init.h
SLOTS = 1024
BINS = 1 << 16


@triton.jit
def _ranks(seed, row, column):
    """int64 ranks of slots [rows, columns], in [0, 2^32)."""
    a, b, c, d = philox(seed, row[:, None], column // 4, STREAM_INIT_MASK)
    which = column % 4
    return tl.where(which < 2, tl.where(which == 0, a, b), tl.where(which == 2, c, d)).to(tl.int64)


@triton.jit(do_not_specialize=["rows", "seed"])
def _histogram_kernel(
    counts, high, rows, seed,
    DIM: tl.constexpr, COLS: tl.constexpr, BLOCK: tl.constexpr, LEVEL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, COLS)[None, :].to(tl.int64)
    rank = _ranks(seed, row, column)
    counted = (row < rows)[:, None] & (column < DIM)
    if LEVEL == 1:
        counted = counted & ((rank >> 16) == tl.load(high))
        bucket = rank & 0xFFFF
    else:
        bucket = rank >> 16
    tl.atomic_add(counts + bucket, tl.full([BLOCK, COLS], 1, tl.int64), mask=counted, sem="relaxed")


@triton.jit(do_not_specialize=["rows", "seed", "kept"])
def _start_kernel(
    words_out, counts_out, threshold, rows, kept, seed,
    DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr, START: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = row < rows
    if START == 2:
        column = tl.arange(0, 32 * WORDS)[None, :].to(tl.int64)
        below = _ranks(seed, row, column) < tl.load(threshold)
        words = words_of(below & live[:, None] & (column < DIM), WORDS)
    else:
        # Prefixes that differ by at most one. rows * kept may not fit in 64 bits: quotient and rest apart.
        whole, rest = kept // rows, kept % rows
        length = tl.full([BLOCK], DIM, tl.int64)
        if START == 1:
            length = whole + (row + 1) * rest // rows - row * rest // rows
        words = low_bits(tl.where(live, length, 0).to(tl.int32)[:, None] - 32 * tl.arange(0, WORDS)[None, :])
    store_words(words_out, counts_out, row, live, words, DIM, WORDS)


@triton.jit(do_not_specialize=["rows", "seed"])
def _values_kernel(
    values, index, cols, rows, seed, scale,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    start, words = decode(index, cols, row, row < rows, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    column = tl.arange(0, 32 * WORDS)[None, :].to(tl.int64)
    a, b, c, d = philox(seed, row[:, None], column // 2, STREAM_INIT_VALUE)
    low = tl.where(column % 2 == 0, a, c)
    high = tl.where(column % 2 == 0, b, d)
    total = ((low & 0xFFFF) + (low >> 16) + (high & 0xFFFF) + (high >> 16)).to(tl.int32) - 131070
    value = total.to(tl.float32) * tl.load(scale)
    tl.store(values + start[:, None] + rank, narrow(value, values.dtype.element_ty), mask=kept)


def _threshold(rows: int, dim: int, kept: int, seed: int, device: torch.device) -> Tensor:
    """int64 [1]: the largest threshold with at most `kept` ranks below it."""
    columns, block = 32 * table_shape(0, dim)["WORDS"], rows_of(dim, SLOTS)
    how = {"DIM": dim, "COLS": columns, "BLOCK": block}
    high = torch.zeros(1, dtype=torch.int64, device=device)
    below = torch.zeros(1, dtype=torch.int64, device=device)
    wanted = torch.full((1,), kept, dtype=torch.int64, device=device)
    levels = []
    for level in range(2):
        counts = torch.zeros(BINS, dtype=torch.int64, device=device)
        launch(_histogram_kernel, rows, block, counts, high, rows, seed, **how, LEVEL=level)
        ends = below + counts.cumsum(0)
        bucket = torch.searchsorted(ends, wanted, right=True)  # the first bucket that does not fit
        below = torch.where(bucket > 0, ends[(bucket - 1).clamp(min=0)], below)
        levels.append(bucket)
        high = bucket
    # All of the first level fit: there is no bucket to look into.
    return torch.where(levels[0] == BINS, BINS * BINS, levels[0] * BINS + levels[1])


def init_index_(index: Tensor, cols: Tensor, kind: int, rows: int, dim: int, start: int, kept: int, seed: int) -> int:
    """Writes the index of a start; returns the number of kept weights. See `PackedTable.init`."""
    op = "init_index_"
    check.layout(op, kind, rows, dim)
    if start not in (FULL, PREFIX, BERNOULLI):
        raise ValueError(f"{op}: start is {start}, expected 0, 1 or 2")
    if not 0 <= kept <= rows * dim:
        raise ValueError(f"{op}: kept is {kept}, expected 0..{rows * dim}")
    name = check.KINDS[kind]
    if name == "full" and start != FULL:
        raise ValueError(f"{op}: kind full starts full; use kind bits or cols8")
    if name == "prefix" and start == BERNOULLI:
        raise ValueError(f"{op}: kind prefix cannot hold a random mask; use kind bits or cols8")
    if start == FULL and kept != rows * dim:
        raise ValueError(f"{op}: a full start keeps {rows * dim} weights, kept is {kept}")
    check.index(op, index, cols, rows * dim if name == "full" else cols.numel(), kind, rows, dim)
    if name == "cols8" and cols.numel() < kept:
        raise ValueError(f"{op}: cols has {cols.numel()} entries, expected at least kept = {kept}")
    threshold = index.new_zeros(1)
    if start == BERNOULLI:
        threshold = _threshold(rows, dim, kept, seed, index.device)
    masks: Masks = empty_masks(kind, rows, dim, index.device)
    block = rows_of(dim, SLOTS)
    how = {"DIM": dim, "WORDS": table_shape(kind, dim)["WORDS"], "BLOCK": block, "START": start}
    launch(_start_kernel, rows, block, *masks, threshold, rows, kept, seed, **how)
    made = make_index(masks, kind, dim)
    index.copy_(made)
    cols.copy_(place_columns(masks, made, cols.numel(), kind, rows, dim))
    return int(masks.counts.sum())


def init_values_(
    values: Tensor, index: Tensor, cols: Tensor, kind: int, rows: int, dim: int, seed: int, std: float
) -> None:
    """Writes the initial value of every kept weight."""
    check.table("init_values_", index, cols, values, kind, rows, dim)
    if not (math.isfinite(std) and std >= 0):
        raise ValueError(f"init_values_: std is {std}, expected a finite number >= 0")
    # One rounding of the quotient to float32, as in csrc/cpu/init.cpp: a Python number would be passed as it is.
    scale = torch.full((1,), std / UNIT, dtype=torch.float32, device=values.device)
    block = rows_of(dim, SLOTS)
    tensors = (values, index_words(index), cols, rows, seed, scale)
    launch(_values_kernel, rows, block, *tensors, **table_shape(kind, dim), BLOCK=block)
    torch.autograd.graph.increment_version(values)
