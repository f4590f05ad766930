"""References of initial weights and masks: pure functions of (seed, row, column)."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse.reference.convert_index import index_of
from recsparse.reference.philox import philox
from recsparse.reference.rows import mask_of

STREAM_INIT_VALUE = 1
STREAM_INIT_MASK = 2
UNIT = (4 * (65536**2 - 1) / 12) ** 0.5  # standard deviation of a sum of four 16-bit uniforms
FULL, PREFIX = 0, 1  # starts


def initial_weights(rows: int, dim: int, seed: int, std: float) -> Tensor:
    """float32 [rows, dim]: sums of four 16-bit uniforms, scaled."""
    row, col = torch.arange(rows)[:, None], torch.arange(dim)[None]
    words = torch.stack(philox(seed, row, col // 2, STREAM_INIT_VALUE))
    pair = words.gather(0, torch.stack([2 * (col % 2), 2 * (col % 2) + 1]).expand(2, rows, dim))
    total = ((pair & 0xFFFF) + (pair >> 16)).sum(0) - 131070
    return total.float() * torch.tensor(std / UNIT, dtype=torch.float32)


def initial_ranks(rows: int, dim: int, seed: int) -> Tensor:
    """int64 [rows, dim]: the random 32-bit rank of each slot; the smallest are kept."""
    row, col = torch.arange(rows)[:, None], torch.arange(dim)[None]
    return torch.stack(philox(seed, row, col // 4, STREAM_INIT_MASK)).gather(0, (col % 4).expand(1, rows, dim))[0]


def init_index_(index: Tensor, cols: Tensor, kind: int, rows: int, dim: int, start: int, kept: int, seed: int) -> int:
    """Writes the index of a start, 0 full, 1 prefix, 2 bernoulli; returns the number of kept weights."""
    if start == FULL:
        mask = torch.ones(rows, dim, dtype=torch.bool)
    elif start == PREFIX:
        mask = (
            torch.arange(dim) < torch.tensor([(r + 1) * kept // rows - r * kept // rows for r in range(rows)])[:, None]
        )
    else:
        ranks = initial_ranks(rows, dim, seed)
        ordered = ranks.view(-1).sort().values
        mask = ranks < (ordered[kept] if kept < rows * dim else 2**32)
    made, made_cols = index_of("init_index_", mask, kind, cols.numel())
    index.copy_(made)
    cols.copy_(made_cols)
    return int(mask.sum())


def init_values_(
    values: Tensor, index: Tensor, cols: Tensor, kind: int, rows: int, dim: int, seed: int, std: float
) -> None:
    """Writes the initial value of every kept weight, rounded to the dtype of `values`."""
    kept = initial_weights(rows, dim, seed, std)[mask_of(index, cols, kind, rows, dim)]
    values[: len(kept)] = kept.to(values.dtype)
