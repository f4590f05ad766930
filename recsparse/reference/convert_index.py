"""The index of a mask, built byte by byte; the references of `pack`, `convert_index` and `misfit_row`."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import layout
from recsparse.reference.rows import mask_of


def convert_index(
    index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int, to_kind: int
) -> tuple[Tensor, Tensor]:
    """(index, cols) of kind `to_kind` for the slots that a table keeps."""
    return index_of("convert_index", mask_of(index, cols, kind, rows, dim), to_kind, capacity)


def misfit_row(index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int, to_kind: int) -> int:
    """The first row that kind `to_kind` cannot hold, or -1."""
    return misfit(mask_of(index, cols, kind, rows, dim), to_kind)


def pack(dense: Tensor, mask: Tensor, kind: int, capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    """(index, cols, values [capacity]); see `recsparse.ops.pack`."""
    index, cols = index_of("pack", mask, kind, capacity)
    kept = int(mask.sum())
    if kept > capacity:
        raise ValueError(f"pack: mask keeps {kept} weights, more than capacity {capacity}")
    values = torch.zeros(capacity, dtype=dense.dtype)
    values[:kept] = dense[mask]
    return index, cols, values


def misfit(mask: Tensor, kind: int) -> int:
    """The first row of bool [rows, dim] `mask` that `kind` cannot hold, or -1."""
    if kind not in (layout.KINDS["full"], layout.KINDS["prefix"]):
        return -1
    wanted = mask.shape[1] if kind == layout.KINDS["full"] else mask.sum(1, keepdim=True)
    wrong = (mask != (torch.arange(mask.shape[1]) < wanted)).any(1).nonzero()
    return int(wrong[0]) if len(wrong) else -1


def index_of(op: str, mask: Tensor, kind: int, capacity: int) -> tuple[Tensor, Tensor]:
    """(index, cols [capacity] for `cols8`) of bool [rows, dim] `mask`."""
    rows, dim = mask.shape
    name = next(name for name, code in layout.KINDS.items() if code == kind)
    row = misfit(mask, kind)
    if row >= 0:
        what = "every column" if name == "full" else "a prefix of its columns"
        raise ValueError(f"{op}: row {row} does not keep {what}; use kind bits or cols8")
    counts = mask.sum(1).tolist()
    new_cols = torch.zeros(capacity if name == "cols8" else 0, dtype=torch.uint8)
    if name == "cols8":
        new_cols[: min(capacity, sum(counts))] = mask.nonzero()[:capacity, 1].to(torch.uint8)
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
