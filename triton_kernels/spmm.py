"""spmm in Triton: D^-1/2 A D^-1/2 x over a graph without values.

A program takes a row of the graph and up to 256 columns, edges of the row side by side: 16 at d = 64 (`graph.py`; rows
of more than 2048 neighbours are cut there). Bytes an edge: 4 of its id, 4 of the neighbour's scale, d of its row, which
the order of the slots keeps in the cache; d a node written. Half of it with rows of 16 bits; sums are float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.graph import DENSE, check_graph, empty_pieces, launch_pieces, row_sums, tile_of
from recsparse.triton_kernels.numbers import narrow
from recsparse.triton_kernels.tile import launch

MOST_COLUMNS = 256  # of a program: wider rows have several
ROWS = 1  # of a program, and they wait for each other


@triton.jit(do_not_specialize=["nodes"])
def _spmm_kernel(
    offsets, neighbours, chunks, index, cols, x, number, scale, pieces, node, out, nodes,
    FROM: tl.constexpr, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr, ACROSS: tl.constexpr, COLS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    column = (program % SPLITS) * COLS + tl.arange(0, COLS)
    slot = (program // SPLITS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = slot < nodes
    total = row_sums(
        offsets, neighbours, chunks, pieces, index, cols, x, number, scale, slot, live, column,
        FROM, KIND, DIM, WORDS, ROWS, ACROSS, COLS,
    )  # fmt: skip
    row = tl.load(node + slot, mask=live, other=0).to(tl.int64)
    total *= tl.load(scale + row, mask=live, other=0)[:, None]
    place = out + row[:, None] * DIM + column[None, :]
    tl.store(place, narrow(total, out.dtype.element_ty), mask=live[:, None] & (column < DIM)[None, :])


class _Spmm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *graph: Tensor) -> Tensor:
        ctx.save_for_backward(*graph)
        offsets, neighbours, node, _, scale, chunks = graph
        dim, out = x.shape[1], torch.empty_like(x)
        columns = min(MOST_COLUMNS, max(16, triton.next_power_of_2(dim)))
        splits = triton.cdiv(dim, columns)
        shape = {"FROM": DENSE.value, "KIND": 0, "DIM": dim, "WORDS": 1, **tile_of(columns)}
        # There is no table and there are no members; a kernel must have pointers.
        source = (offsets, offsets, x.detach(), offsets, scale)
        pieces = empty_pieces(neighbours, dim)
        launch_pieces((offsets, neighbours, chunks), source, pieces, splits, **shape)
        tensors = (offsets, neighbours, chunks, *source, pieces, node, out, len(x))
        rows = triton.cdiv(len(x), ROWS)
        launch(_spmm_kernel, rows * splits, 1, *tensors, **shape, ROWS=ROWS, SPLITS=splits)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The matrix equals its transpose."""
        return _Spmm.apply(grad.contiguous(), *ctx.saved_tensors), *[None] * 6


def spmm(
    offsets: Tensor, neighbours: Tensor, node: Tensor, slot: Tensor, scale: Tensor, chunks: Tensor, x: Tensor
) -> Tensor:
    """[nodes, d] of the dtype of `x`; see `recsparse.ops.spmm`. Nothing waits for the device."""
    graph = (offsets, neighbours, node, slot, scale, chunks)
    check_graph("spmm", *graph)
    check.floating("x", "spmm", x, check.VALUE_TYPES)
    check.tensor("spmm", "x", x, x.dtype, neighbours.device)
    if x.dim() != 2 or x.shape[0] != node.numel() or x.shape[1] < 1:
        raise ValueError(f"spmm: x has shape {list(x.shape)}, expected [{node.numel()} nodes, d]")
    result: Tensor = _Spmm.apply(x, *graph)
    return result
