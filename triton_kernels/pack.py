"""pack and unpack in Triton: dense rows and a mask to a packed table, and back.

A program takes a tile [rows, columns] of about 2048 slots. pack: the mask read once for the mask words, then dense rows
read at kept columns and values written; unpack: index and values read, dense rows and masks written in whole lines.
Values move as integers: every bit is kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.build_index import (
    Masks,
    empty_masks,
    load_words,
    make_index,
    misfit_of,
    no_fit,
    store_words,
)
from recsparse.triton_kernels.rows import COLS8, decode, expand, span, words_of
from recsparse.triton_kernels.tile import bits_of, index_words, launch, rows_of, table_shape


@triton.jit(do_not_specialize=["rows"])
def _mask_kernel(
    mask, words_out, counts_out, rows, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = row < rows
    column = tl.arange(0, 32 * WORDS)[None, :]
    kept = tl.load(mask + row[:, None] * DIM + column, mask=live[:, None] & (column < DIM), other=0) != 0
    store_words(words_out, counts_out, row, live, words_of(kept, WORDS), DIM, WORDS)


@triton.jit(do_not_specialize=["rows"])
def _place_kernel(
    words_in, index, dense, values, cols, rows, capacity,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = row < rows
    start, _ = span(index, row, live, KIND, DIM)
    kept, rank = expand(load_words(words_in, row, live, DIM, WORDS), WORDS)
    column = tl.arange(0, 32 * WORDS)[None, :]
    place = start[:, None] + rank
    kept = kept & (place < capacity)
    if VALUES:
        value = tl.load(dense + row[:, None] * DIM + column, mask=kept, other=0)
        tl.store(values + place, value, mask=kept)
    if KIND == COLS8:
        tl.store(cols + place, (column + tl.zeros_like(rank)).to(tl.uint8), mask=kept)


@triton.jit(do_not_specialize=["rows"])
def _unpack_kernel(
    index, cols, values, dense, mask, rows,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = row < rows
    start, words = decode(index, cols, row, live, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    column = tl.arange(0, 32 * WORDS)[None, :]
    inside = live[:, None] & (column < DIM)
    tl.store(
        dense + row[:, None] * DIM + column, tl.load(values + start[:, None] + rank, mask=kept, other=0), mask=inside
    )
    tl.store(mask + row[:, None] * DIM + column, kept.to(tl.uint8), mask=inside)


def place_columns(masks: Masks, index: Tensor, capacity: int, kind: int, rows: int, dim: int) -> Tensor:
    """uint8 [capacity]: the columns of kind cols8, zero behind the kept weights; empty for other kinds."""
    if kind != COLS8.value:
        return torch.empty(0, dtype=torch.uint8, device=index.device)
    cols = torch.zeros(capacity, dtype=torch.uint8, device=index.device)
    block, words = rows_of(dim), index_words(index)
    tensors = (masks.words, words, cols, cols, cols, rows, capacity)
    launch(_place_kernel, rows, block, *tensors, **table_shape(kind, dim), BLOCK=block, VALUES=False)
    return cols


def pack(dense: Tensor, mask: Tensor, kind: int, capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    """(index, cols, values); see `recsparse.ops.pack`. Waits for the device, to know that the kept weights fit."""
    check.floating("dense", "pack", dense)
    check.tensor("pack", "dense", dense, dense.dtype, dense.device)
    check.tensor("pack", "mask", mask, torch.bool, dense.device)
    if dense.dim() != 2:
        raise ValueError(f"pack: dense has shape {list(dense.shape)}, expected [rows, dim]")
    if mask.shape != dense.shape:
        raise ValueError(f"pack: mask has shape {list(mask.shape)}, expected {list(dense.shape)}")
    if capacity < 0:
        raise ValueError(f"pack: capacity is {capacity}, expected at least 0")
    rows, dim = dense.shape
    check.layout("pack", kind, rows, dim)
    shape, block = table_shape(kind, dim), rows_of(dim)
    masks = empty_masks(kind, rows, dim, dense.device)
    only = {"DIM": dim, "WORDS": shape["WORDS"], "BLOCK": block}
    launch(_mask_kernel, rows, block, mask.view(torch.uint8), *masks, rows, **only)
    row = misfit_of(masks, kind, rows, dim)
    if row >= 0:
        raise no_fit("pack", row, kind)
    kept = int(masks.counts.sum())
    if kept > capacity:
        raise ValueError(f"pack: mask keeps {kept} weights, more than capacity {capacity}")
    index = make_index(masks, kind, dim)
    values = torch.zeros(capacity, dtype=dense.dtype, device=dense.device)
    cols = torch.zeros(capacity if kind == COLS8.value else 0, dtype=torch.uint8, device=dense.device)
    tensors = (masks.words, index_words(index), bits_of(dense), bits_of(values), cols, rows, capacity)
    launch(_place_kernel, rows, block, *tensors, **shape, BLOCK=block, VALUES=True)
    return index, cols, values


def unpack(index: Tensor, cols: Tensor, values: Tensor, kind: int, rows: int, dim: int) -> tuple[Tensor, Tensor]:
    """(dense [rows, dim], mask bool [rows, dim]); see `recsparse.ops.unpack`."""
    check.table("unpack", index, cols, values, kind, rows, dim, check.FLOATING)
    dense = torch.empty(rows, dim, dtype=values.dtype, device=values.device)
    mask = torch.empty(rows, dim, dtype=torch.bool, device=values.device)
    block = rows_of(dim)
    tensors = (index_words(index), cols, bits_of(values), bits_of(dense), mask.view(torch.uint8), rows)
    launch(_unpack_kernel, rows, block, *tensors, **table_shape(kind, dim), BLOCK=block)
    return dense, mask
