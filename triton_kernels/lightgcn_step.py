"""lightgcn_step_ and lightgcn_grow_scores in Triton: what `csrc/cpu/lightgcn_step.h` says, on a GPU.

With S = D^-1/2, A' = S A S and g the gradient of the mean of the layers, Horner's rule gives both directions:

    mean of layers = (e + A'(e + A'(e + ..))) / (K + 1)      gradient of e = g + A'(g + A'(g + ..)), g divided by K + 1

Every product is a launch over the rows of the graph (`graph.py`), and what becomes of a sum is decided in registers:

*Forward*: s (e + s sum), a row of the next layer. The first one reads its neighbours packed, an index line and the kept
weights of each; e is read packed by all of them. *Mean*: the last layer, for the distinct rows of the mini-batch alone.
Then losses and g (`lightgcn_batch.py`). *Backward*: s (g + s sum), of which the first one skips neighbours that are not
in the mini-batch. *Update* or *grow*: the last product of the backward, in which a row goes to the optimiser at its
kept columns, or its other columns are scored. No dense gradient exists.

Memory: min(2, K - 1) arrays [nodes, dim] of the hidden type, 4 bytes a node, two float32 rows a distinct row of a
mini-batch, and 36 bytes an occurrence of the call for sorted ids.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.bpr_grow_scores import CHUNK_SLOTS, best_slots
from recsparse.triton_kernels.bpr_step import batch_means, check_batches, gather_row
from recsparse.triton_kernels.graph import (
    MEMBERS,
    PACKED,
    SCALED,
    check_graph,
    empty_pieces,
    launch_pieces,
    row_sums,
    tile_of,
)
from recsparse.triton_kernels.lightgcn_batch import batch_gradient
from recsparse.triton_kernels.numbers import narrow
from recsparse.triton_kernels.rows import decode, expand
from recsparse.triton_kernels.segments import Segments, make_segments
from recsparse.triton_kernels.tile import index_words, launch, table_shape
from recsparse.triton_kernels.update import coefficients, update_rows

ROWS = 1  # of the graph in a program, and they wait for each other


@triton.jit
def _own_gradient(gradient, member, row, live, column, DIM: tl.constexpr):
    """(g of rows, float32 [rows, columns], zeros where they are not in the mini-batch; their numbers in it or -1)."""
    number = tl.load(member + row, mask=live, other=-1).to(tl.int64)
    inside = (number >= 0)[:, None] & (column < DIM)[None, :]
    return tl.load(gradient + number[:, None] * DIM + column[None, :], mask=inside, other=0), number


@triton.jit(do_not_specialize=["nodes"])
def _layer_forward_kernel(
    offsets, neighbours, chunks, index, cols, x, member, scale, pieces, node, values, out, nodes,
    FROM: tl.constexpr, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr, ACROSS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, COLS)
    slot = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = slot < nodes
    total = row_sums(
        offsets, neighbours, chunks, pieces, index, cols, x, member, scale, slot, live, column,
        FROM, KIND, DIM, WORDS, ROWS, ACROSS, COLS,
    )  # fmt: skip
    row = tl.load(node + slot, mask=live, other=0).to(tl.int64)
    own, _, _ = gather_row(index, cols, values, row, live, KIND, DIM, WORDS)
    s = tl.load(scale + row, mask=live, other=0)[:, None]
    place = out + row[:, None] * DIM + column[None, :]
    inside = live[:, None] & (column < DIM)[None, :]
    tl.store(place, narrow(s * (own + s * total), out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["batch", "first", "count", "rows"])
def _mean_kernel(
    offsets, neighbours, chunks, index, cols, x, member, scale, pieces, slots, values, keys, number, begin, out,
    batch, first, count, rows, share,
    FROM: tl.constexpr, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr, ACROSS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """The mean of the layers of the distinct rows of a mini-batch, and their numbers in it."""
    column = tl.arange(0, COLS)
    segment = tl.load(number + first)
    last = tl.load(number + first + count - 1) + 1
    place = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = segment + place < last
    head = tl.load(begin + segment + place, mask=live, other=0)
    row = tl.load(keys + head, mask=live, other=0).to(tl.int64) - batch.to(tl.int64) * rows
    row = tl.where(live, row, 0)
    slot = tl.load(slots + row, mask=live, other=0).to(tl.int64)
    total = row_sums(
        offsets, neighbours, chunks, pieces, index, cols, x, member, scale, slot, live, column,
        FROM, KIND, DIM, WORDS, ROWS, ACROSS, COLS,
    )  # fmt: skip
    own, _, _ = gather_row(index, cols, values, row, live, KIND, DIM, WORDS)
    s = tl.load(scale + row, mask=live, other=0)[:, None]
    inside = live[:, None] & (column < DIM)[None, :]
    tl.store(out + place[:, None] * DIM + column[None, :], share * (own + s * total), mask=inside)
    tl.store(member + row, place.to(tl.int32), mask=live)


@triton.jit(do_not_specialize=["nodes"])
def _layer_backward_kernel(
    offsets, neighbours, chunks, index, cols, x, member, scale, pieces, node, gradient, out, nodes,
    FROM: tl.constexpr, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr, ACROSS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, COLS)
    slot = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = slot < nodes
    total = row_sums(
        offsets, neighbours, chunks, pieces, index, cols, x, member, scale, slot, live, column,
        FROM, KIND, DIM, WORDS, ROWS, ACROSS, COLS,
    )  # fmt: skip
    row = tl.load(node + slot, mask=live, other=0).to(tl.int64)
    own, _ = _own_gradient(gradient, member, row, live, column, DIM)
    s = tl.load(scale + row, mask=live, other=0)[:, None]
    place = out + row[:, None] * DIM + column[None, :]
    inside = live[:, None] & (column < DIM)[None, :]
    tl.store(place, narrow(s * (own + s * total), out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["nodes", "batch", "first", "seed"])
def _last_update_kernel(
    offsets, neighbours, chunks, index, cols, x, member, scale, pieces, node, gradient, number, begin, values, state,
    step, steps, nodes, batch, first, seed, pull, decay, rate1, rate2,
    FROM: tl.constexpr, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, OPTIMIZER: tl.constexpr,
    ROWS: tl.constexpr, ACROSS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, COLS)
    slot = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = slot < nodes
    total = row_sums(
        offsets, neighbours, chunks, pieces, index, cols, x, member, scale, slot, live, column,
        FROM, KIND, DIM, WORDS, ROWS, ACROSS, COLS,
    )  # fmt: skip
    row = tl.load(node + slot, mask=live, other=0).to(tl.int64)
    own, place = _own_gradient(gradient, member, row, live, column, DIM)
    total = own + tl.load(scale + row, mask=live, other=0)[:, None] * total
    segment = begin + tl.load(number + first) + place
    occurrences = tl.load(segment + 1, mask=place >= 0, other=0) - tl.load(segment, mask=place >= 0, other=0)
    start, words = decode(index, cols, row, live, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    weight = tl.load(values + start[:, None] + rank, mask=kept, other=0).to(tl.float32)
    total += (pull * occurrences.to(tl.float32))[:, None] * weight
    size = tl.load(steps + 2 * batch)
    eps = tl.load(steps + 2 * batch + 1)
    update_rows(
        values, state, row, live, start[:, None] + rank, kept, rank, total,
        step, batch + 1, seed, size, eps, decay, rate1, rate2, OPTIMIZER,
    )  # fmt: skip


@triton.jit(do_not_specialize=["first", "last"])
def _last_grow_kernel(
    offsets, neighbours, chunks, index, cols, x, member, scale, pieces, slots, gradient, scores, first, last,
    FROM: tl.constexpr, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr, ACROSS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """|gradient| of the nodes [first, last) where no weight is kept, into `scores` [last - first, DIM]."""
    column = tl.arange(0, COLS)
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row = first + at
    live = row < last
    slot = tl.load(slots + row, mask=live, other=0).to(tl.int64)
    total = row_sums(
        offsets, neighbours, chunks, pieces, index, cols, x, member, scale, slot, live, column,
        FROM, KIND, DIM, WORDS, ROWS, ACROSS, COLS,
    )  # fmt: skip
    own, _ = _own_gradient(gradient, member, row, live, column, DIM)
    total = own + tl.load(scale + row, mask=live, other=0)[:, None] * total
    _, words = decode(index, cols, row, live, KIND, DIM, WORDS)
    kept, _ = expand(words, WORDS)
    inside = live[:, None] & (column < DIM)[None, :]
    tl.store(scores + at[:, None] * DIM + column[None, :], tl.where(kept, 0.0, tl.abs(total)), mask=inside)


class _Step:
    """The tensors of one call, and the launches of a mini-batch up to the last product of the backward."""

    def __init__(
        self, op: str, values: Tensor, index: Tensor, cols: Tensor, graph: tuple[Tensor, ...],
        triples: tuple[Tensor, Tensor, Tensor], layout: tuple[int, int, int], item_offset: int, batch_size: int,
        layers: int, half_hidden: bool,
    ) -> None:  # fmt: skip
        kind, rows, dim = layout
        check.table(op, index, cols, values, kind, rows, dim)
        check_graph(op, *graph)
        offsets, neighbours, self.node, self.slot, self.scale, chunks = graph
        if neighbours.device != index.device:
            raise ValueError(f"{op}: neighbours is on {neighbours.device}, expected {index.device}")
        if self.node.numel() != rows:
            raise ValueError(f"{op}: the graph has {self.node.numel()} nodes, expected one a row, {rows}")
        if not 1 <= layers <= 64:
            raise ValueError(f"{op}: layers is {layers}, expected 1..64")
        self.count, self.batch_size, self.batches = check_batches(op, triples, rows, item_offset, batch_size, index)
        self.values, self.words, self.cols, self.triples = values, index_words(index), cols, triples
        self.rows, self.dim, self.item_offset, self.layers = rows, dim, item_offset, layers
        self.graph = (offsets, neighbours, chunks)
        if self.count == 0:
            return
        device = index.device
        table = table_shape(kind, dim)
        self.columns = 32 * table["WORDS"]
        self.shape = {**table, **tile_of(self.columns)}
        hidden = torch.bfloat16 if half_hidden else torch.float32
        self.hidden = torch.empty(min(2, layers - 1), rows, dim, dtype=hidden, device=device)
        self.pieces = empty_pieces(neighbours, dim)
        self.member = torch.empty(rows, dtype=torch.int32, device=device)
        self.distinct = min(3 * self.batch_size, rows)
        self.mean, self.gradient = torch.empty(2, self.distinct, dim, dtype=torch.float32, device=device)
        self.factors = torch.empty(self.batch_size, dtype=torch.float32, device=device)
        self.loss = torch.empty(self.count, dtype=torch.float32, device=device)
        users, pos, neg = triples
        batch_of = torch.arange(self.count, device=device) // self.batch_size
        row_of = torch.stack([users, item_offset + pos, item_offset + neg], 1)
        keys = (batch_of[:, None] * rows + row_of).flatten()
        self.segments: Segments = make_segments(keys, self.batches * rows)

    def source(self, kind: int, x: Tensor) -> tuple[tuple[Tensor, ...], dict[str, int]]:
        """(the tensors that a product reads, its shape); the pieces of rows that are cut are summed."""
        source, shape = (self.words, self.cols, x, self.member, self.scale), {**self.shape, "FROM": kind}
        launch_pieces(self.graph, source, self.pieces, **shape)
        return (*self.graph, *source, self.pieces), shape

    def product(self, kernel: Any, kind: int, x: Tensor, work: int, *rest: Any, **how: int) -> None:
        """A product of which `kernel` takes the rows."""
        tensors, shape = self.source(kind, x)
        launch(kernel, work, ROWS, *tensors, *rest, **shape, ROWS=ROWS, **how)

    def run(self, batch: int) -> tuple[int, Tensor]:
        """All of mini-batch `batch` but the last product: what that one reads (FROM and x)."""
        first = batch * self.batch_size
        count, share = min(self.batch_size, self.count - first), 1 / (self.layers + 1)
        kind, x = PACKED.value, self.values
        for k in range(self.layers - 1):
            out = self.hidden[k % 2]
            self.product(_layer_forward_kernel, kind, x, self.rows, self.node, self.values, out, self.rows)
            kind, x = SCALED.value, out
        self.member.fill_(-1)
        distinct, segments = min(3 * count, self.rows), self.segments
        tensors = (self.slot, self.values, segments.keys, segments.number, segments.begin, self.mean)
        self.product(
            _mean_kernel, kind, x, distinct, *tensors, batch, 3 * first, 3 * count, self.rows, share
        )  # fmt: skip
        batch_gradient(
            self.triples, self.segments, self.item_offset, first, count, share, self.member, self.mean, self.factors,
            self.loss, self.gradient,
        )  # fmt: skip
        kind, x = MEMBERS.value, self.gradient
        for k in range(self.layers - 1):
            out = self.hidden[k % 2]
            self.product(_layer_backward_kernel, kind, x, self.rows, self.node, self.gradient, out, self.rows)
            kind, x = SCALED.value, out
        return kind, x


def lightgcn_step_(
    values: Tensor,
    state: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    offsets: Tensor,
    neighbours: Tensor,
    node: Tensor,
    slot: Tensor,
    scale: Tensor,
    chunks: Tensor,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    kind: int,
    rows: int,
    dim: int,
    item_offset: int,
    batch_size: int,
    layers: int,
    half_hidden: bool,
    optimizer: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    l2: float,
    seed: int,
) -> Tensor:
    """float32 [mini-batches]; see `recsparse.ops.lightgcn_step_`. Nothing waits for the device."""
    op = "lightgcn_step_"
    check.optimizer(op, optimizer)
    check.options(op, optimizer, lr, beta1, beta2, eps, weight_decay)
    check.state(op, "state", state, optimizer, values.numel(), rows, index.device)
    check.step(op, step, index.device)
    graph, triples = (offsets, neighbours, node, slot, scale, chunks), (users, pos, neg)
    layout = (kind, rows, dim)
    call = _Step(op, values, index, cols, graph, triples, layout, item_offset, batch_size, layers, half_hidden)
    if call.count == 0:
        return state.new_empty(0)
    steps = coefficients(step, call.batches, optimizer, lr, beta1, beta2, eps, lazy=False)
    rates = (weight_decay, 1 - beta1, 1 - beta2)
    for batch in range(call.batches):
        source, x = call.run(batch)
        first = batch * call.batch_size
        pull = l2 / min(call.batch_size, call.count - first)
        rest = (node, call.gradient, call.segments.number, call.segments.begin, values, state, step, steps, rows)
        numbers = (batch, 3 * first, seed, pull, *rates)
        call.product(_last_update_kernel, source, x, rows, *rest, *numbers, OPTIMIZER=optimizer)
    step += call.batches
    torch.autograd.graph.increment_version([values, state])
    return batch_means(call.loss, call.batch_size)


def lightgcn_grow_scores(
    values: Tensor,
    index: Tensor,
    cols: Tensor,
    offsets: Tensor,
    neighbours: Tensor,
    node: Tensor,
    slot: Tensor,
    scale: Tensor,
    chunks: Tensor,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    kind: int,
    rows: int,
    dim: int,
    item_offset: int,
    layers: int,
    half_hidden: bool,
    limit: int,
) -> tuple[Tensor, Tensor]:
    """(keys, scores); see `recsparse.ops.lightgcn_grow_scores`. Waits for the device, to know their number."""
    op, n = "lightgcn_grow_scores", users.numel()
    if limit < 0:
        raise ValueError(f"{op}: limit is {limit}, expected at least 0")
    graph, layout = (offsets, neighbours, node, slot, scale, chunks), (kind, rows, dim)
    call = _Step(op, values, index, cols, graph, (users, pos, neg), layout, item_offset, max(1, n), layers, half_hidden)
    best = users.new_empty(0), torch.empty(0, dtype=torch.float32, device=index.device)
    if n == 0 or limit == 0:
        return best
    tensors, shape = call.source(*call.run(0))
    chunk = max(1, CHUNK_SLOTS // dim)
    for first in range(0, rows, chunk):
        last = min(rows, first + chunk)
        scores = torch.empty(last - first, dim, dtype=torch.float32, device=index.device)
        args = (*tensors, slot, call.gradient, scores, first, last)
        launch(_last_grow_kernel, last - first, ROWS, *args, **shape, ROWS=ROWS)
        keys = torch.arange(first * dim, last * dim, device=index.device)
        best = best_slots(torch.cat([best[0], keys]), torch.cat([best[1], scores.flatten()]), limit)
    return best
