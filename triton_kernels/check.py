"""Checks of arguments, with the words of `csrc/torch/check.h`."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse.layout import KINDS as KIND_CODES
from recsparse.layout import index_nbytes

VALUE_TYPES = (torch.float32, torch.float16, torch.bfloat16)
FLOATING = (*VALUE_TYPES, torch.float64)  # float64 for gradient checks
SGD, ADAGRAD, ROWWISE_ADAGRAD, ADAM = range(4)  # `Optimizer` in csrc/core/update.h
KINDS = {code: name for name, code in KIND_CODES.items()}


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


def layout(op: str, kind: int, rows: int, dim: int) -> None:
    """A layout that there is."""
    if kind not in KINDS:
        raise ValueError(f"{op}: index kind {kind} is not one of 0 (full) .. 3 (cols8)")
    if not 1 <= dim <= 256:
        raise ValueError(f"{op}: dim is {dim}, expected 1..256")
    if not 0 <= rows < 2**40:
        raise ValueError(f"{op}: rows is {rows}, expected 0..2^40")


def index(op: str, index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int) -> None:
    """The index of a table of this layout."""
    layout(op, kind, rows, dim)
    vector(op, "index", index, torch.int64, index.device)
    vector(op, "cols", cols, torch.uint8, index.device)
    words = index_nbytes(KINDS[kind], rows, dim) // 8
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


def optimizer(op: str, code: int) -> None:
    """An optimiser that there is."""
    if not 0 <= code <= 3:
        raise ValueError(f"{op}: optimizer is {code}, expected 0 (sgd), 1 (adagrad), 2 (rowwise_adagrad) or 3 (adam)")


def options(op: str, optimizer: int, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float) -> None:
    """Hyper-parameters of an optimiser."""
    if not lr >= 0:
        raise ValueError(f"{op}: lr is {lr}, expected at least 0")
    if not weight_decay >= 0:
        raise ValueError(f"{op}: weight_decay is {weight_decay}, expected at least 0")
    if optimizer != SGD and not eps > 0:
        raise ValueError(f"{op}: eps is {eps}, expected above 0")
    if optimizer == ADAM and not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"{op}: betas are {beta1} and {beta2}, expected in [0, 1)")


def state(op: str, name: str, given: Tensor, optimizer: int, capacity: int, rows: int, device: torch.device) -> None:
    """The state tensor of an optimiser."""
    vector(op, name, given, torch.float32, device)
    expected = (0, capacity, rows, 2 * capacity)[optimizer]
    if given.numel() != expected:
        what = ("", " = capacity", " = rows", " = 2 * capacity")[optimizer]
        raise ValueError(f"{op}: {name} has {given.numel()} entries, expected {expected}{what}")


def step(op: str, given: Tensor, device: torch.device) -> None:
    """The step counter."""
    tensor(op, "step", given, torch.int64, device)
    if given.numel() != 1:
        raise ValueError(f"{op}: step has {given.numel()} entries, expected 1")


def triples(
    op: str, users: Tensor, pos: Tensor, neg: Tensor, rows: int, item_offset: int, device: torch.device
) -> None:
    """Triples of a joint table: users in rows [0, item_offset), items behind them."""
    for name, given in (("users", users), ("pos", pos), ("neg", neg)):
        vector(op, name, given, torch.int64, device)
    counts = users.numel(), pos.numel(), neg.numel()
    if len(set(counts)) > 1:
        raise ValueError(
            f"{op}: users, pos and neg have {counts[0]}, {counts[1]} and {counts[2]} entries, expected the same number"
        )
    if not 0 <= item_offset <= rows:
        raise ValueError(f"{op}: item_offset is {item_offset}, expected 0..rows = {rows}")
    ids(op, "users", users, item_offset)
    ids(op, "pos", pos, rows - item_offset)
    ids(op, "neg", neg, rows - item_offset)
