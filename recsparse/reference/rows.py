"""The packed format, decoded the slow and obvious way: a check on `csrc/core/rows.h` that shares no code with it."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import layout


def mask_of(index: Tensor, cols: Tensor, kind: int, rows: int, dim: int) -> Tensor:
    """Where a table keeps a weight, bool [rows, dim]."""
    mask = torch.zeros(rows, dim, dtype=torch.bool)
    if kind == layout.KINDS["full"]:
        return ~mask
    name = next(name for name, code in layout.KINDS.items() if code == kind)
    per_block = layout.rows_per_block(name, dim)
    words = index.numel() // -(-rows // per_block) if rows else 0
    raw = index.contiguous().view(torch.uint8).tolist()
    for row in range(rows):
        block, within = divmod(row, per_block)
        base = 8 * words * block
        body = base + 8
        if name == "bits":
            row_bytes = 4 * -(-dim // 32)
            for col in range(dim):
                mask[row, col] = bool(raw[body + within * row_bytes + col // 8] >> (col % 8) & 1)
            continue
        width = 1 if dim < 256 else 2
        lengths = [
            int.from_bytes(bytes(raw[body + width * i : body + width * (i + 1)]), "little") for i in range(within + 1)
        ]
        start = int.from_bytes(bytes(raw[base : base + 8]), "little") + sum(lengths[:-1])
        if name == "prefix":
            mask[row, : lengths[-1]] = True
        else:
            mask[row, cols[start : start + lengths[-1]].long()] = True
    return mask


def unpack(index: Tensor, cols: Tensor, values: Tensor, kind: int, rows: int, dim: int) -> tuple[Tensor, Tensor]:
    """(dense [rows, dim], mask bool [rows, dim]); differentiable with respect to values."""
    mask = mask_of(index, cols, kind, rows, dim)
    keys = mask.view(-1).nonzero()[:, 0]
    dense = values.new_zeros(rows * dim).index_put((keys,), values[: len(keys)])
    return dense.view(rows, dim), mask
