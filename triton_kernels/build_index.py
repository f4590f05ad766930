"""The index of any kind from mask words: what pack, init, convert_index and prune_regrow_ share.

Mask words int32 [rows, words of dim] are the common form (8 bytes a row at d = 64). A block of the index is its base,
the number of values in earlier blocks, and the words or lengths of its rows: strided copies, which torch does at memory
speed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse import layout
from recsparse.triton_kernels.check import KINDS
from recsparse.triton_kernels.rows import popcount


class Masks(NamedTuple):
    """Kept slots of rows, padded with empty rows to whole blocks of the index kind that they are for.

    Attributes:
        words: int32 [padded rows, ceil(dim / 32)].
        counts: int32 [padded rows], set bits of each row.
    """

    words: Tensor
    counts: Tensor


def empty_masks(kind: int, rows: int, dim: int, device: torch.device) -> Masks:
    """Masks of rows that keep nothing, for an index of `kind`."""
    per_block = 1 if KINDS[kind] == "full" else layout.rows_per_block(KINDS[kind], dim)
    padded = triton.cdiv(rows, per_block) * per_block
    words = torch.zeros(padded, triton.cdiv(dim, 32), dtype=torch.int32, device=device)
    return Masks(words, torch.zeros(padded, dtype=torch.int32, device=device))


@triton.jit
def load_words(source, row, live, DIM: tl.constexpr, WORDS: tl.constexpr):
    """Mask words uint32 [rows, WORDS] of int64 `row`."""
    W: tl.constexpr = (DIM + 31) // 32
    word = tl.arange(0, WORDS)[None, :]
    there = live[:, None] & (word < W)
    return tl.load(source + row[:, None] * W + word, mask=there, other=0).to(tl.uint32, bitcast=True)


@triton.jit
def store_words(target, counts, row, live, words, DIM: tl.constexpr, WORDS: tl.constexpr):
    """The inverse of `load_words`; and the number of set bits."""
    W: tl.constexpr = (DIM + 31) // 32
    word = tl.arange(0, WORDS)[None, :]
    tl.store(target + row[:, None] * W + word, words.to(tl.int32, bitcast=True), mask=live[:, None] & (word < W))
    tl.store(counts + row, tl.sum(popcount(words), 1), mask=live)


def misfit_of(masks: Masks, kind: int, rows: int, dim: int) -> int:
    """The first row that `kind` cannot hold, or -1. Waits for the device, for kinds full and prefix only."""
    if KINDS[kind] not in ("full", "prefix") or rows == 0:
        return -1
    counts = masks.counts[:rows, None].long()
    wanted = torch.full_like(counts, dim) if KINDS[kind] == "full" else counts
    first = 32 * torch.arange(masks.words.shape[1], device=counts.device)
    low_bits = (1 << (wanted - first).clamp(0, 32)) - 1
    wrong = ((masks.words[:rows].long() & 0xFFFFFFFF) != low_bits).any(1).nonzero()
    return int(wrong[0]) if len(wrong) else -1


def make_index(masks: Masks, kind: int, dim: int) -> Tensor:
    """int64 index of `kind`, one that can hold the masks."""
    name, device = KINDS[kind], masks.counts.device
    if name == "full":
        return torch.empty(0, dtype=torch.int64, device=device)
    per_block = layout.rows_per_block(name, dim)
    blocks = masks.counts.numel() // per_block
    index = torch.zeros(layout.index_nbytes(name, blocks * per_block, dim) // 8, dtype=torch.int64, device=device)
    if blocks == 0:
        return index
    totals = masks.counts.view(blocks, per_block).sum(1)
    lines = index.view(blocks, -1)
    lines[:, 0] = totals.cumsum(0) - totals
    if name == "bits":
        own = masks.words.view(blocks, -1)
        lines.view(torch.int32)[:, 2 : 2 + own.shape[1]] = own
    else:
        length = torch.uint8 if dim < 256 else torch.int16
        first = 8 // length.itemsize
        lines.view(length)[:, first : first + per_block] = masks.counts.view(blocks, per_block).to(length)
    return index


def no_fit(op: str, row: int, kind: int) -> ValueError:
    """The error for a row that `kind` cannot hold."""
    what = "every column" if KINDS[kind] == "full" else "a prefix of its columns"
    return ValueError(f"{op}: row {row} does not keep {what}; use kind bits or cols8")
