"""bpr_step_ in Triton: two kernels a mini-batch, no dense row and no gradient of a row in memory.

Once a call, rows of all mini-batches are sorted by (mini-batch, row): one sort, 20 bytes an occurrence. Then, one
mini-batch after the other:

*Score*: a tile [triples, columns] of about 512 slots. It decodes the three rows of a triple (three index lines, three
rows of values), keeps them in registers, and writes for each of the three a *record*: its gradient, at its kept columns
only, one or two 32-byte sectors at 10 % of d = 64. No later pass reads a partner, so rows can be updated in place.

*Update*: a tile [distinct rows, 32 kept weights] sums the records of each row in ascending position and applies the
optimiser: records read once, values and state read and written once. A short row of a wide table costs 32 lanes, not
`dim`. Rows that occur more than 64 times have programs of their own (`segments.py`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.rows import decode, expand, span
from recsparse.triton_kernels.segments import LONG, long_segment, long_work, make_segments, short_segments, sum_rows
from recsparse.triton_kernels.tile import index_words, launch, rows_of, table_shape
from recsparse.triton_kernels.update import coefficients, update_rows

SCORE_SLOTS = 512  # three rows a triple: a third of the slots that one row could have
UPDATE_SLOTS = 1024


@triton.jit
def gather_row(index, cols, values, row, live, KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr):
    """(values float32, kept, rank) of rows, [rows, 32 * WORDS]."""
    start, words = decode(index, cols, row, live, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    return tl.load(values + start[:, None] + rank, mask=kept, other=0).to(tl.float32), kept, rank


@triton.jit
def logistic(x):
    """(softplus(x), sigmoid(x)); NaN gives NaN."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x > 0, x, 0.0) + tl.log(1 + e), tl.where(x > 0, 1.0, e) / (1 + e)


@triton.jit(do_not_specialize=["first", "count", "item_offset"])
def _score_kernel(
    index, cols, values, users, pos, neg, records, loss, first, count, item_offset, inverse,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    triple = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = triple < count
    user = tl.load(users + first + triple, mask=live, other=0)
    own, kept_u, rank_u = gather_row(index, cols, values, user, live, KIND, DIM, WORDS)
    item = item_offset + tl.load(pos + first + triple, mask=live, other=0)
    liked, kept_i, rank_i = gather_row(index, cols, values, item, live, KIND, DIM, WORDS)
    item = item_offset + tl.load(neg + first + triple, mask=live, other=0)
    other, kept_j, rank_j = gather_row(index, cols, values, item, live, KIND, DIM, WORDS)
    partner = other - liked
    softplus, sigmoid = logistic(tl.sum(own * partner, 1))
    tl.store(loss + first + triple, softplus, mask=live)
    scale = (sigmoid * inverse)[:, None]
    record = records + triple[:, None] * (3 * DIM)
    tl.store(record + rank_u, scale * partner, mask=kept_u)
    tl.store(record + DIM + rank_i, -scale * own, mask=kept_i)
    tl.store(record + 2 * DIM + rank_j, scale * own, mask=kept_j)


@triton.jit(do_not_specialize=["batch", "first", "count", "rows", "seed"])
def _update_kernel(
    values, state, step, index, keys, order, number, begin, records, steps, batch, first, count, rows, seed, pull,
    decay, rate1, rate2,
    KIND: tl.constexpr, DIM: tl.constexpr, OPTIMIZER: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    if ACROSS > 1:
        key, head, length = long_segment(keys, number, begin, first, count)
    else:
        segment = tl.load(number + first)
        last = tl.load(number + first + count - 1) + 1
        key, head, length = short_segments(keys, begin, segment, last, BLOCK)
    live = length > 0
    row = tl.where(live, key - batch.to(tl.int64) * rows, 0)
    start, kept = span(index, row, live, KIND, DIM)
    size = tl.load(steps + 2 * batch)
    eps = tl.load(steps + 2 * batch + 1)
    for done in range(0, tl.max(kept), CHUNK):
        gradient = sum_rows(records, order, first, head, length, done, kept, BLOCK, ACROSS, DIM, CHUNK)
        position = done + tl.arange(0, CHUNK)[None, :] + tl.zeros([BLOCK, 1], tl.int32)
        keep = position < kept[:, None]
        place = start[:, None] + position
        weight = tl.load(values + place, mask=keep, other=0).to(tl.float32)
        gradient += (pull * length.to(tl.float32))[:, None] * weight
        update_rows(
            values, state, row, live, place, keep, position, gradient,
            step, batch + 1, seed, size, eps, decay, rate1, rate2, OPTIMIZER,
        )  # fmt: skip


def check_batches(
    op: str, triples: tuple[Tensor, Tensor, Tensor], rows: int, item_offset: int, batch_size: int, index: Tensor
) -> tuple[int, int, int]:
    """(triples, triples a mini-batch, mini-batches)."""
    if batch_size < 1:
        raise ValueError(f"{op}: batch_size is {batch_size}, expected at least 1")
    check.triples(op, *triples, rows, item_offset, index.device)
    count = triples[0].numel()
    batch_size = min(batch_size, max(1, count))
    return count, batch_size, triton.cdiv(count, batch_size)


def batch_means(loss: Tensor, batch_size: int) -> Tensor:
    """float32 [mini-batches] of the losses of triples; the last mini-batch may be shorter."""
    n = loss.numel()
    batches = triton.cdiv(n, batch_size)
    padded = loss.new_zeros(batches * batch_size)
    padded[:n] = loss
    sizes = torch.full((batches,), batch_size, dtype=torch.float32, device=loss.device)
    sizes[-1:] = n - (batches - 1) * batch_size
    return padded.view(batches, batch_size).sum(1) / sizes


def bpr_step_(
    values: Tensor,
    state: Tensor,
    step: Tensor,
    index: Tensor,
    cols: Tensor,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    kind: int,
    rows: int,
    dim: int,
    item_offset: int,
    batch_size: int,
    optimizer: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    l2: float,
    seed: int,
) -> Tensor:
    """float32 [mini-batches]; see `recsparse.ops.bpr_step_`. Nothing waits for the device."""
    op, device = "bpr_step_", index.device
    check.table(op, index, cols, values, kind, rows, dim)
    check.optimizer(op, optimizer)
    check.options(op, optimizer, lr, beta1, beta2, eps, weight_decay)
    check.state(op, "state", state, optimizer, values.numel(), rows, device)
    check.step(op, step, device)
    n, batch_size, batches = check_batches(op, (users, pos, neg), rows, item_offset, batch_size, index)
    if n == 0:
        return state.new_empty(0)

    batch_of = torch.arange(n, device=device) // batch_size
    row_of = torch.stack([users, item_offset + pos, item_offset + neg], 1)
    segments = make_segments((batch_of[:, None] * rows + row_of).flatten(), batches * rows)
    steps = coefficients(step, batches, optimizer, lr, beta1, beta2, eps, lazy=True)
    records = torch.empty(3 * batch_size * dim, dtype=torch.float32, device=device)
    loss = torch.empty(n, dtype=torch.float32, device=device)
    words, shape = index_words(index), table_shape(kind, dim)
    score_block, columns = rows_of(dim, SCORE_SLOTS), 32 * shape["WORDS"]
    chunk = columns if optimizer == check.ROWWISE_ADAGRAD else 32
    block = max(1, UPDATE_SLOTS // chunk)
    how = {"KIND": kind, "DIM": dim, "OPTIMIZER": optimizer, "CHUNK": chunk}
    rates = (weight_decay, 1 - beta1, 1 - beta2)
    for batch in range(batches):
        first = batch * batch_size
        count = min(batch_size, n - first)
        tensors = (words, cols, values, users, pos, neg, records, loss)
        launch(
            _score_kernel,
            count,
            score_block,
            *tensors,
            first,
            count,
            item_offset,
            1 / count,
            **shape,
            BLOCK=score_block,
        )
        sorted_rows = (words, *segments, records, steps, batch, 3 * first, 3 * count, rows, seed, l2 / count, *rates)
        args = (values, state, step, *sorted_rows)
        launch(_update_kernel, min(3 * count, rows), block, *args, **how, BLOCK=block, ACROSS=1)
        launch(_update_kernel, long_work(3 * count), LONG.value, *args, **how, BLOCK=1, ACROSS=block)
    step += batches
    torch.autograd.graph.increment_version([values, state])
    return batch_means(loss, batch_size)
