"""bpr_grow_scores in Triton: the gradient of slots that are not kept, for the rows that a batch touches.

One pass over the triples writes a coefficient each (4 bytes; three rows decoded). Then the distinct rows, a chunk at a
time: a tile [rows, columns] walks the occurrences of its rows, decodes their partners again, which have not changed,
and holds the full-width gradient in registers. What is written is |gradient| where no weight is kept: a dense buffer of
the chunk's rows in the order of the keys, from which `select` takes the best exactly.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.bpr_step import SCORE_SLOTS, gather_row, logistic
from recsparse.triton_kernels.rows import decode, expand
from recsparse.triton_kernels.segments import LONG, long_segment, long_work, make_segments, short_segments
from recsparse.triton_kernels.select import select
from recsparse.triton_kernels.tile import index_words, launch, rows_of, table_shape

CHUNK_SLOTS = 1 << 24  # scores in the buffer: 64 MB


@triton.jit(do_not_specialize=["count", "item_offset"])
def _coefficient_kernel(
    index, cols, values, users, pos, neg, out, count, item_offset, inverse,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    triple = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = triple < count
    user = tl.load(users + triple, mask=live, other=0)
    own, _, _ = gather_row(index, cols, values, user, live, KIND, DIM, WORDS)
    item = item_offset + tl.load(pos + triple, mask=live, other=0)
    liked, _, _ = gather_row(index, cols, values, item, live, KIND, DIM, WORDS)
    item = item_offset + tl.load(neg + triple, mask=live, other=0)
    other, _, _ = gather_row(index, cols, values, item, live, KIND, DIM, WORDS)
    _, sigmoid = logistic(tl.sum(own * (other - liked), 1))
    tl.store(out + triple, sigmoid * inverse, mask=live)


@triton.jit(do_not_specialize=["first", "last", "count", "item_offset"])
def _score_slots_kernel(
    index, cols, values, users, pos, neg, coefficients, keys, order, number, begin, scores,
    first, last, count, item_offset,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """|gradient| of the rows of the segments [first, last) into `scores` [last - first, DIM]."""
    if ACROSS > 1:
        row, head, length = long_segment(keys, number, begin, 0, count)
    else:
        row, head, length = short_segments(keys, begin, first, last, BLOCK)
    segment = tl.load(number + head, mask=length > 0, other=0)
    length = tl.where((segment >= first) & (segment < last), length, 0)
    total = tl.zeros([BLOCK * ACROSS, 32 * WORDS], tl.float32)
    step = tl.arange(0, ACROSS) if ACROSS > 1 else tl.zeros([BLOCK], tl.int32)
    for done in range(0, tl.max(length), ACROSS):
        have = done + step < length
        occurrence = tl.load(order + head + done + step, mask=have, other=0)
        triple = occurrence // 3
        role = occurrence - 3 * triple
        of_user = have & (role == 0)
        user = tl.load(users + triple, mask=have, other=0)
        other = item_offset + tl.load(neg + triple, mask=have, other=0)
        liked = item_offset + tl.load(pos + triple, mask=have, other=0)
        # d loss / d user = c (neg - pos), d pos = -c user, d neg = c user
        partner, _, _ = gather_row(index, cols, values, tl.where(of_user, other, user), have, KIND, DIM, WORDS)
        minus, _, _ = gather_row(index, cols, values, liked, of_user, KIND, DIM, WORDS)
        scale = tl.load(coefficients + triple, mask=have, other=0)
        total += tl.where(role == 1, -scale, scale)[:, None] * (partner - minus)
    if ACROSS > 1:
        total = tl.sum(total, 0)[None, :]
    _, words = decode(index, cols, row, length > 0, KIND, DIM, WORDS)
    kept, _ = expand(words, WORDS)
    column = tl.arange(0, 32 * WORDS)[None, :]
    inside = (length > 0)[:, None] & (column < DIM)
    place = (segment - first)[:, None] * DIM + column
    tl.store(scores + place, tl.where(kept, 0.0, tl.abs(total)), mask=inside)


def best_slots(keys: Tensor, scores: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The largest `limit` positive scores, ties to the lower key; keys ascend before and after."""
    candidates = scores > 0
    if int(candidates.sum()) > limit:
        threshold, ties = select(scores, limit)
        equal = scores == threshold
        candidates = (scores > threshold) | (equal & (equal.cumsum(0) <= ties))
        if limit == 0:
            candidates = torch.zeros_like(candidates)
    chosen = candidates.nonzero()[:, 0]
    return keys[chosen], scores[chosen]


def bpr_grow_scores(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    kind: int,
    rows: int,
    dim: int,
    item_offset: int,
    limit: int,
) -> tuple[Tensor, Tensor]:
    """(keys, scores); see `recsparse.ops.bpr_grow_scores`. Waits for the device: the result has the size it has."""
    op, device = "bpr_grow_scores", index.device
    check.table(op, index, cols, values, kind, rows, dim)
    check.triples(op, users, pos, neg, rows, item_offset, device)
    n = users.numel()
    if limit < 0:
        raise ValueError(f"{op}: limit is {limit}, expected at least 0")
    if n >= 1 << 24:
        raise ValueError(f"{op}: {n} triples, expected fewer than 2^24")
    best = users.new_empty(0), torch.empty(0, dtype=torch.float32, device=device)
    if n == 0:
        return best
    shape, block = table_shape(kind, dim), rows_of(dim, SCORE_SLOTS)
    table = (index_words(index), cols, values, users, pos, neg)
    coefficients = torch.empty(n, dtype=torch.float32, device=device)
    launch(_coefficient_kernel, n, block, *table, coefficients, n, item_offset, 1 / n, **shape, BLOCK=block)
    segments = make_segments(torch.stack([users, item_offset + pos, item_offset + neg], 1).flatten(), rows)
    touched = torch.unique_consecutive(segments.keys).long()
    distinct = touched.numel()
    chunk = max(1, CHUNK_SLOTS // dim)
    columns = torch.arange(dim, device=device)
    for first in range(0, distinct, chunk):
        last = min(distinct, first + chunk)
        scores = torch.empty(last - first, dim, dtype=torch.float32, device=device)
        tensors = (*table, coefficients, *segments, scores, first, last, 3 * n, item_offset)
        launch(_score_slots_kernel, last - first, block, *tensors, **shape, BLOCK=block, ACROSS=1)
        launch(_score_slots_kernel, long_work(3 * n), LONG.value, *tensors, **shape, BLOCK=1, ACROSS=block)
        keys = (touched[first:last, None] * dim + columns).flatten()
        best = best_slots(torch.cat([best[0], keys]), torch.cat([best[1], scores.flatten()]), limit)
    return best
