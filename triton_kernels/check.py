"""Checks of arguments, with the words of `csrc/torch/check.h`."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import layout

VALUE_TYPES = (torch.float32, torch.float16, torch.bfloat16)
FLOATING = (*VALUE_TYPES, torch.float64)  # float64 for gradient checks
KINDS = {code: name for name, code in layout.KINDS.items()}


def tensor(op: str, name: str, given: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    """A contiguous tensor of `dtype` on `device`."""
    if given.dtype != dtype:
        raise TypeError(f"{op}: {name} has dtype {given.dtype}, expected {dtype}")
    if given.device != device:
        raise ValueError(f"{op}: {name} is on {given.device}, expected {device}")
    if not given.is_contiguous():
        raise ValueError(f"{op}: {name} is not contiguous; call .contiguous() on it")


def vector(op: str, name: str, given: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    """A contiguous tensor of one dimension."""
    tensor(op, name, given, dtype, device)
    if given.dim() != 1:
        raise ValueError(f"{op}: {name} has shape {list(given.shape)}, expected one dimension")


def index(op: str, index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int) -> None:
    """The index of a table of this layout."""
    if kind not in KINDS:
        raise ValueError(f"{op}: index kind {kind} is not one of 0 (full) .. 3 (cols8)")
    if not 1 <= dim <= 256:
        raise ValueError(f"{op}: dim is {dim}, expected 1..256")
    if not 0 <= rows < 2**40:
        raise ValueError(f"{op}: rows is {rows}, expected 0..2^40")
    vector(op, "index", index, torch.int64, index.device)
    vector(op, "cols", cols, torch.uint8, index.device)
    words = layout.index_nbytes(KINDS[kind], rows, dim) // 8
    if index.numel() != words:
        raise ValueError(f"{op}: index has {index.numel()} words, expected {words} for {rows} rows of dim {dim}")
    expected = capacity if KINDS[kind] == "cols8" else 0
    if cols.numel() != expected:
        raise ValueError(f"{op}: cols has {cols.numel()} entries, expected {expected}")
    if KINDS[kind] == "full" and capacity != rows * dim:
        raise ValueError(f"{op}: values has {capacity} entries, expected rows * dim = {rows * dim} for kind full")


def table(
    op: str,
    index_: Tensor,
    cols: Tensor,
    values: Tensor,
    kind: int,
    rows: int,
    dim: int,
    dtypes: tuple[torch.dtype, ...] = VALUE_TYPES,
) -> None:
    """A table whose values have one of `dtypes`."""
    floating("values", op, values, dtypes)
    vector(op, "values", values, values.dtype, index_.device)
    index(op, index_, cols, values.numel(), kind, rows, dim)


def floating(name: str, op: str, given: Tensor, dtypes: tuple[torch.dtype, ...] = FLOATING) -> None:
    """A tensor of one of `dtypes`."""
    if given.dtype not in dtypes:
        raise TypeError(f"{op}: {name} has dtype {given.dtype}, expected one of {', '.join(map(str, dtypes))}")


def padding(op: str, padding: int, rows: int) -> None:
    """A row, or -1."""
    if not -1 <= padding < rows:
        raise ValueError(f"{op}: padding row is {padding}, expected -1 (none) or 0..{rows - 1}")


def ids(op: str, name: str, given: Tensor, limit: int) -> None:
    """Ids lie in [0, limit).

    On the CPU (the interpreter) a bad one is an IndexError. On a GPU it is a device-side assertion, as in torch's own
    indexing: to read a verdict back, every step would wait for the device.
    """
    bad = (given < 0) | (given >= limit)
    if given.is_cuda:
        torch._assert_async(~bad.any(), f"{op}: {name} is out of range, expected 0..{limit - 1}")
    elif bool(bad.any()):
        at = int(bad.nonzero()[0])
        raise IndexError(f"{op}: {name}[{at}] = {int(given[at])} is out of range, expected 0..{limit - 1}")
