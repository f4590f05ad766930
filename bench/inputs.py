"""Inputs of the benchmarks: masked tables, ids, and comparison of answers. Everything is a function of a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recsparse import ops
from recsparse.errors import UserError
from recsparse.table import PackedTable

from . import memory
from .machine import last_level_cache
from .registry import Case, Traffic

ROWS_PER_CHUNK = 1 << 18
SET_BYTES = 512 << 20
MAX_SETS = 1 << 14
LINE = 64
FLOAT = 4


def generator(seed: int) -> torch.Generator:
    """Of torch's default device."""
    return torch.Generator(device=torch.get_default_device()).manual_seed(seed)


def masked_dense(case: Case, scale: float = 1.0, seed: int = 1) -> Tensor:
    """float32 [rows, dim] with the kept slots non-zero, of both signs, scale / 3 <= |w| <= scale, the others exactly 0.
    All numbers are exact in the dtype of the case.

    Kept slots are Bernoulli(density); for kind ``prefix`` a row keeps its first columns, as many as the Bernoulli mask
    would have kept. Built in chunks: the only large array is the result.
    """
    if case.kind == "full" and case.density < 1:
        raise UserError(f"--kind full keeps every weight: --density {case.density:g} must be 1; use --kind bits")
    dense = memory.empty(case.rows, case.dim)
    source = generator(seed)
    signs = torch.where(torch.arange(case.dim) % 2 == 0, scale / 1.5, -scale / 1.5)
    for start in range(0, case.rows, ROWS_PER_CHUNK):
        chunk = dense[start : start + ROWS_PER_CHUNK]
        chunk.uniform_(0.0, 1.0, generator=source)
        kept = chunk < case.density
        if case.kind == "prefix":
            kept = torch.arange(case.dim) < kept.sum(dim=1, keepdim=True)
            chunk.uniform_(0.0, case.density, generator=source)
        # One draw gives mask and value: below the density it is uniform again.
        chunk.mul_(1 / case.density).add_(0.5).mul_(signs).mul_(kept)
        if case.value_type != chunk.dtype:
            chunk.copy_(chunk.to(case.value_type))
    return dense


def pack_table(dense: Tensor, mask: Tensor, kind: str, dtype: torch.dtype = torch.float32) -> PackedTable:
    """A table of the masked weights, on pages like those of a table that `PackedTable.init` made for training."""
    index, cols, values = (memory.copied(part) for part in ops.pack(dense.to(dtype), mask, kind, int(mask.sum())))
    rows, dim = dense.shape
    return PackedTable(rows, dim, kind, index, cols, values)


def on_backend(table: PackedTable, backend: str) -> PackedTable:
    """The same table, with the same tensors, served by another backend."""
    return PackedTable(table.rows, table.dim, table.kind, table.index, table.cols, table.values, backend)


def parse_ids(text: str) -> float | None:
    """Exponent of ``zipf:A``, or None for ``uniform``."""
    if text == "uniform":
        return None
    name, _, exponent = text.partition(":")
    try:
        value = float(exponent)
    except ValueError:
        value = math.nan
    if name != "zipf" or not 0 < value < 10:
        raise UserError(f"--ids: got {text!r}; expected uniform or zipf:A with 0 < A < 10, for example zipf:1.05")
    return value


def draw_ids(count: int, rows: int, ids: str, source: torch.Generator) -> Tensor:
    """int64 [count] in [0, rows): uniform, or Zipf with the popular ids scattered over the table."""
    exponent = parse_ids(ids)
    uniform = torch.rand(count, generator=source, dtype=torch.float64)
    if exponent is None:
        return (uniform * rows).long().clamp_(max=rows - 1)
    if exponent == 1.0:
        rank = torch.exp(uniform * math.log(rows))
    else:
        power = 1.0 - exponent
        rank = (uniform * (rows**power - 1.0) + 1.0) ** (1.0 / power)
    stride = 2_654_435_761
    while math.gcd(stride, rows) != 1:
        stride += 1
    return (rank.long() - 1).clamp_(0, rows - 1) * stride % rows


def count_sets(case: Case, providers: int, set_bytes: int, touched_bytes: int) -> int:
    """How many input sets a case rotates over: 4 if warm; cold, at least 24 for each provider where memory allows it
    (never fewer than 24), and enough that the bytes touched before a set returns exceed the last-level cache."""
    if not case.cold:
        return 4
    wanted = max(24 * providers, 2 * last_level_cache(case.device) // max(1, touched_bytes))
    return max(24, min(wanted, SET_BYTES // max(1, set_bytes), MAX_SETS))


def dense_line(row_bytes: int) -> int:
    """Bytes of a dense row, rounded to the line sizes whose gather ceiling is measured."""
    return min(256, max(LINE, 1 << (row_bytes - 1).bit_length()))


def dense_gather(count: int, case: Case, passes: int = 1, size: int = FLOAT) -> Traffic:
    """Traffic to read or write ``count`` random rows of a dense table ``passes`` times, numbers of ``size`` bytes."""
    row = case.dim * size
    return Traffic(gather=count * row * passes, line=dense_line(row), table=case.rows * row)


def packed_gather(count: int, table: PackedTable, arrays: int = 1, passes: int = 1) -> Traffic:
    """Traffic of ``count`` random rows of a packed table: the index line once, and ``arrays`` numbers a weight, the
    first of which is the value and the others are floats.

    A row starts anywhere in a line: n bytes lie on 1 + (n - 4) / 64 lines on average.
    """
    per_row = (table.values.element_size() + (arrays - 1) * FLOAT) * table.nnz / table.rows
    lines = passes * (1 + max(0.0, per_row - FLOAT) / LINE)
    if table.kind == "full":
        lines = passes * per_row / LINE
    else:
        lines += 2 if table.kind == "cols8" else 1
    return Traffic(gather=round(count * lines * LINE), line=LINE, table=table.nbytes()["total"])


def differs(answer: Sequence[Tensor | None], expected: Sequence[Tensor]) -> str | None:
    """None if all given tensors equal the expected ones bit for bit; an answer of None in a place is not compared."""
    for place, (got, want) in enumerate(zip(answer, expected, strict=True)):
        if got is None:
            continue
        if got.shape != want.shape:
            return f"output {place} has shape {tuple(got.shape)}, expected {tuple(want.shape)}"
        if not torch.equal(got, want):
            return f"output {place} differs in {int((got != want).sum())} of {want.numel()} places"
    return None
