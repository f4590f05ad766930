"""References of what a table says about itself."""

from __future__ import annotations

from torch import Tensor

from recsparse.reference.rows import mask_of


def row_counts(index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int) -> Tensor:
    """int64 [rows]: kept weights of each row."""
    return mask_of(index, cols, kind, rows, dim).sum(1)


def column_mask(index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int, column: int) -> Tensor:
    """bool [rows]: which rows keep `column`."""
    return mask_of(index, cols, kind, rows, dim)[:, column]
