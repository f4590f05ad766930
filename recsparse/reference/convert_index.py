"""The index of a mask, built byte by byte."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import layout
from recsparse.reference.rows import mask_of


def convert_index(
    index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int, to_kind: int
) -> tuple[Tensor, Tensor]:
    """(index, cols) of kind `to_kind` for the slots that a table keeps."""
    mask = mask_of(index, cols, kind, rows, dim)
    name = next(name for name, code in layout.KINDS.items() if code == to_kind)
    counts = mask.sum(1).tolist()
    for row, count in enumerate(counts):
        if name == "full" and count < dim:
            raise ValueError(f"convert_index: row {row} does not keep every column; use kind bits or cols8")
        if name == "prefix" and not mask[row, :count].all():
            raise ValueError(f"convert_index: row {row} does not keep a prefix of its columns; use kind bits or cols8")
    new_cols = torch.zeros(capacity if name == "cols8" else 0, dtype=torch.uint8)
    if name == "cols8":
        new_cols[: sum(counts)] = mask.nonzero()[:, 1].to(torch.uint8)
    if name == "full":
        return torch.empty(0, dtype=torch.int64), new_cols
    per_block = layout.rows_per_block(name, dim)
    blocks = -(-rows // per_block)
    block_bytes = layout.index_nbytes(name, rows, dim) // max(1, blocks)
    raw = bytearray(blocks * block_bytes)
    start = 0
    for row, count in enumerate(counts):
        block, within = divmod(row, per_block)
        at = block * block_bytes
        if within == 0:
            raw[at : at + 8] = start.to_bytes(8, "little")
        if name == "bits":
            width = 4 * -(-dim // 32)
            entry = sum(1 << col for col in range(dim) if mask[row, col])
        else:
            width = 1 if dim < 256 else 2
            entry = count
        raw[at + 8 + within * width : at + 8 + (within + 1) * width] = entry.to_bytes(width, "little")
        start += count
    if not raw:
        return torch.empty(0, dtype=torch.int64), new_cols
    return torch.frombuffer(raw, dtype=torch.uint8).view(torch.int64).clone(), new_cols
