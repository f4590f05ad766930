"""row_counts and column_mask in Triton: an index line read a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.rows import decode, span
from recsparse.triton_kernels.tile import index_words, launch, table_shape

BLOCK_ROWS = 128


@triton.jit(do_not_specialize=["rows"])
def _counts_kernel(index, counts, rows, KIND: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    _, count = span(index, row, row < rows, KIND, DIM)
    tl.store(counts + row, count.to(tl.int64), mask=row < rows)


@triton.jit(do_not_specialize=["rows", "column"])
def _column_kernel(
    index, cols, kept, rows, column,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    _, words = decode(index, cols, row, row < rows, KIND, DIM, WORDS)
    own = tl.sum(tl.where(tl.arange(0, WORDS)[None, :] == column // 32, words, 0), 1).to(tl.uint32)
    tl.store(kept + row, ((own >> (column % 32).to(tl.uint32)) & 1).to(tl.uint8), mask=row < rows)


def row_counts(index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int) -> Tensor:
    """int64 [rows]: kept weights of each row."""
    check.index("row_counts", index, cols, capacity, kind, rows, dim)
    counts = torch.empty(rows, dtype=torch.int64, device=index.device)
    how = {"KIND": kind, "DIM": dim, "BLOCK": BLOCK_ROWS}
    launch(_counts_kernel, rows, BLOCK_ROWS, index_words(index), counts, rows, **how)
    return counts


def column_mask(index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int, column: int) -> Tensor:
    """bool [rows]: which rows keep `column`."""
    check.index("column_mask", index, cols, capacity, kind, rows, dim)
    if not 0 <= column < dim:
        raise IndexError(f"column_mask: column is {column}, expected 0..{dim - 1}")
    kept = torch.empty(rows, dtype=torch.bool, device=index.device)
    tensors = (index_words(index), cols, kept.view(torch.uint8), rows, column)
    launch(_column_kernel, rows, BLOCK_ROWS, *tensors, **table_shape(kind, dim), BLOCK=BLOCK_ROWS)
    return kept
