"""Sums over the neighbours of nodes, what all propagation is made of: the device side of `csrc/core/graph.h`.

A program takes a tile of rows of the graph, a few edges of each at a time: ids first, then the neighbours' rows, added
up in registers. Rows of more than SEGMENT neighbours come first among the slots; a program of the *pieces* kernel sums
the edges of one window of SEGMENT edges, which holds the end of one such row and perhaps the beginning of the next, and
whoever works on the row adds up its pieces in order. So no program walks more than SEGMENT edges, nothing is read back
to the host, and the sums depend on the graph alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.rows import decode, expand
from recsparse.triton_kernels.search import lower_bound
from recsparse.triton_kernels.tile import launch

SEGMENT = tl.constexpr(2048)  # kSegmentEdges

# Where the row of a neighbour comes from.
DENSE = tl.constexpr(0)  # x
SCALED = tl.constexpr(1)  # x, which holds rows that have been multiplied by their scale
MEMBERS = tl.constexpr(2)  # x [members, DIM]: the row number[node], zeros where that is negative
PACKED = tl.constexpr(3)  # the table (index, cols, x)

SLOTS = 1024  # of a tile: eight sums in each of 128 threads
MOST_ACROSS = 32  # more edges of a row at a time than most rows have would only be masked


def tile_of(columns: int) -> dict[str, int]:
    """The compile-time arguments of a tile of one row: edges at a time, and columns."""
    return {"ACROSS": max(1, min(MOST_ACROSS, SLOTS // columns)), "COLS": columns}


def check_graph(
    op: str, offsets: Tensor, neighbours: Tensor, node: Tensor, slot: Tensor, scale: Tensor, chunks: Tensor
) -> None:
    """The tensors of `recsparse.graph.Graph`, which alone knows how to fill them: sizes and types."""
    kind, device = neighbours.dtype, neighbours.device
    if kind not in (torch.int32, torch.int64):
        raise TypeError(f"{op}: neighbours has dtype {kind}, expected {torch.int32} or {torch.int64}")
    check.vector(op, "neighbours", neighbours, kind, device)
    check.vector(op, "offsets", offsets, torch.int64, device)
    check.vector(op, "node", node, kind, device)
    check.vector(op, "slot", slot, kind, device)
    check.vector(op, "scale", scale, torch.float32, device)
    check.vector(op, "chunks", chunks, torch.int64, device)
    n = node.numel()
    found = (offsets.numel(), n, slot.numel(), scale.numel(), chunks.numel())
    if found[0] != n + 1 or found[2] != n or found[3] != n or found[4] < 1:
        raise ValueError(
            f"{op}: offsets, node, slot, scale and chunks have {', '.join(map(str, found))} entries, expected n + 1, "
            "n, n, n and at least 1"
        )


def cut_windows(neighbours: Tensor) -> int:
    """Windows that may hold edges of rows that are cut."""
    edges = neighbours.numel()
    return triton.cdiv(edges, SEGMENT.value) if edges > SEGMENT.value else 0


def empty_pieces(neighbours: Tensor, dim: int) -> Tensor:
    """Room for the sums of all pieces: float32 [windows, 2, dim]."""
    return torch.empty(cut_windows(neighbours), 2, dim, dtype=torch.float32, device=neighbours.device)


@triton.jit
def _neighbour_rows(
    index, cols, x, number, scale, node, have, column,
    FROM: tl.constexpr, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """float32 [n, columns]: rows of `node` [n] times their scale, zeros where not `have`."""
    if FROM == PACKED:
        start, words = decode(index, cols, node, have, KIND, DIM, WORDS)
        kept, rank = expand(words, WORDS)
        row = tl.load(x + start[:, None] + rank, mask=kept, other=0).to(tl.float32)
    else:
        place = node
        if FROM == MEMBERS:
            place = tl.load(number + node, mask=have, other=-1).to(tl.int64)
            have = place >= 0
        inside = have[:, None] & (column < DIM)[None, :]
        row = tl.load(x + place[:, None] * DIM + column[None, :], mask=inside, other=0).to(tl.float32)
    if FROM != SCALED:
        row *= tl.load(scale + node, mask=have, other=0)[:, None]
    return row


@triton.jit
def _gather(
    neighbours, index, cols, x, number, scale, begin, count, column,
    FROM: tl.constexpr, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr, ACROSS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """float32 [ROWS, COLS]: sums over the edges [begin, begin + count) of each row of the tile."""
    step = tl.arange(0, ACROSS)[None, :]
    edge = tl.reshape(begin[:, None] + step, [ROWS * ACROSS])
    left = tl.reshape(count[:, None] - step, [ROWS * ACROSS])
    total = tl.zeros([ROWS * ACROSS, COLS], tl.float32)
    for done in range(0, tl.max(count), ACROSS):
        have = done < left
        node = tl.load(neighbours + edge + done, mask=have, other=0).to(tl.int64)
        total += _neighbour_rows(index, cols, x, number, scale, node, have, column, FROM, KIND, DIM, WORDS)
    return tl.sum(tl.reshape(total, [ROWS, ACROSS, COLS]), 1)


@triton.jit
def _joined(
    pieces, begin, end, column,
    DIM: tl.constexpr, ROWS: tl.constexpr, ACROSS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """float32 [ROWS, COLS]: sums of the pieces of rows with the edges [begin, end); zeros of a row without edges."""
    first = begin // SEGMENT
    count = tl.where(begin < end, (end - 1) // SEGMENT - first + 1, 0)
    step = tl.arange(0, ACROSS)[None, :]
    window = tl.reshape(first[:, None] + step, [ROWS * ACROSS])
    left = tl.reshape(count[:, None] - step, [ROWS * ACROSS])
    # A row that begins inside a window has the second piece of it.
    inside = tl.reshape(tl.where(begin % SEGMENT != 0, first, -1)[:, None] + step * 0, [ROWS * ACROSS])
    total = tl.zeros([ROWS * ACROSS, COLS], tl.float32)
    for done in range(0, tl.max(count), ACROSS):
        have = (done < left)[:, None] & (column < DIM)[None, :]
        piece = 2 * (window + done) + (window + done == inside).to(tl.int64)
        total += tl.load(pieces + piece[:, None] * DIM + column[None, :], mask=have, other=0)
    return tl.sum(tl.reshape(total, [ROWS, ACROSS, COLS]), 1)


@triton.jit
def row_sums(
    offsets, neighbours, chunks, pieces, index, cols, x, number, scale, slot, live, column,
    FROM: tl.constexpr, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr, ACROSS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """float32 [ROWS, COLS]: sums over all neighbours of the rows in int64 `slot` [ROWS], unscaled by the rows' own.

    The pieces are those that `pieces_kernel` has written from the same source.
    """
    begin = tl.load(offsets + slot, mask=live, other=0)
    end = tl.load(offsets + slot + 1, mask=live, other=0)
    cut = slot < tl.load(chunks)
    total = _gather(
        neighbours, index, cols, x, number, scale, begin, tl.where(cut, 0, end - begin), column,
        FROM, KIND, DIM, WORDS, ROWS, ACROSS, COLS,
    )  # fmt: skip
    return total + _joined(pieces, begin, tl.where(cut, end, begin), column, DIM, ROWS, ACROSS, COLS)


@triton.jit
def pieces_kernel(
    offsets, neighbours, chunks, index, cols, x, number, scale, pieces,
    FROM: tl.constexpr, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr,
    ACROSS: tl.constexpr, COLS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """The sums of the two pieces of a window, of COLS columns of each."""
    program = tl.program_id(0)
    column = (program % SPLITS) * COLS + tl.arange(0, COLS)
    window = (program // SPLITS).to(tl.int64)
    start = window * SEGMENT + tl.zeros([1], tl.int64)
    rows = tl.load(chunks)
    stop = tl.minimum(start + SEGMENT, tl.load(offsets + rows))
    live = start < stop
    row = tl.where(live, lower_bound(offsets, rows, start + 1) - 1, 0)
    boundary = tl.minimum(tl.load(offsets + row + 1, mask=live, other=0), stop)
    second = tl.arange(0, 2) == 1
    begin = tl.where(second, boundary, start)
    count = tl.where(live, tl.where(second, stop, boundary) - begin, 0)
    total = _gather(
        neighbours, index, cols, x, number, scale, begin, count, column,
        FROM, KIND, DIM, WORDS, 2, ACROSS, COLS,
    )  # fmt: skip
    place = pieces + (2 * window + tl.arange(0, 2)[:, None]) * DIM + column[None, :]
    tl.store(place, total, mask=live[:, None] & (column < DIM)[None, :])


def launch_pieces(
    graph: tuple[Tensor, ...], source: tuple[Tensor, ...], pieces: Tensor, splits: int = 1, **shape: int
) -> None:
    """Sums of the pieces of all rows that are cut.

    Args:
        graph: (offsets, neighbours, chunks).
        source: (index, cols, x, number, scale), of which FROM says what is read.
        splits: parts of COLS columns that a row has.
    """
    shape["ACROSS"] = max(1, shape["ACROSS"] // 2)  # there are two rows in a tile
    launch(pieces_kernel, len(pieces) * splits, 1, *graph, *source, pieces, **shape, SPLITS=splits)
