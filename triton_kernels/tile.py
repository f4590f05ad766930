"""Shapes of tiles, and the views of tensors that kernels take."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

# A tile of this many slots keeps 16 loads in flight in each of the 128 threads of a program, and fits in registers.
SLOTS = 2048

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def words_of(dim: int) -> int:
    """Mask words of a row, rounded up to a power of two."""
    return triton.next_power_of_2(triton.cdiv(dim, 32))


def rows_of(dim: int, slots: int = SLOTS) -> int:
    """Rows in a tile of about `slots` slots."""
    return max(1, slots // (32 * words_of(dim)))


def table_shape(kind: int, dim: int) -> dict[str, int]:
    """The compile-time arguments that describe a table."""
    return {"KIND": kind, "DIM": dim, "WORDS": words_of(dim)}


def index_words(index: Tensor) -> Tensor:
    """The index as the int32 words that `rows.decode` reads."""
    return index.view(torch.int32)


def bits_of(tensor: Tensor) -> Tensor:
    """The same memory as integers: kernels that only move values keep every bit, of NaN too, and any dtype."""
    return tensor.detach().view(_BITS[tensor.element_size()])


def launch(kernel: Any, work: int, each: int, *args: Any, **options: Any) -> None:
    """Run `kernel` on a grid of programs for `work` items, `each` a program; nothing without work.

    Products and sums may be fused: said here, because the default differs between versions of Triton.
    """
    if work > 0:
        kernel[(triton.cdiv(work, each),)](*args, **options, enable_fp_fusion=True)
