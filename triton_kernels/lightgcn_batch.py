"""A mini-batch of LightGCN in Triton: losses, and the gradient of the mean of the layers, from the rows of that mean.

*Triples*: a tile [triples, columns] reads three rows and writes a loss and a factor. *Gradient*: a tile of rows that
differ walks their occurrences side by side and adds up their partners' rows; a row that occurs more than 64 times has a
program of its own (`segments.py`). Rows are float32 [distinct, dim], found by their numbers in the mini-batch.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels.bpr_step import logistic
from recsparse.triton_kernels.segments import LONG, Segments, long_segment, long_work, short_segments
from recsparse.triton_kernels.tile import launch, rows_of, words_of

SCORE_SLOTS = 512  # three rows a triple
GRADIENT_SLOTS = 1024


@triton.jit
def _mean_rows(out, member, row, live, column, DIM: tl.constexpr):
    number = tl.load(member + row, mask=live, other=0).to(tl.int64)
    inside = live[:, None] & (column < DIM)[None, :]
    return tl.load(out + number[:, None] * DIM + column[None, :], mask=inside, other=0)


@triton.jit(do_not_specialize=["first", "count", "item_offset"])
def _triples_kernel(
    users, pos, neg, member, out, factors, loss, first, count, item_offset, inverse,
    DIM: tl.constexpr, BLOCK: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """The loss of each triple, and its derivative with respect to the difference of the scores."""
    triple = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = triple < count
    column = tl.arange(0, COLS)
    user = tl.load(users + first + triple, mask=live, other=0)
    liked = item_offset + tl.load(pos + first + triple, mask=live, other=0)
    other = item_offset + tl.load(neg + first + triple, mask=live, other=0)
    own = _mean_rows(out, member, user, live, column, DIM)
    partner = _mean_rows(out, member, other, live, column, DIM) - _mean_rows(out, member, liked, live, column, DIM)
    softplus, sigmoid = logistic(tl.sum(own * partner, 1))
    tl.store(loss + first + triple, softplus, mask=live)
    tl.store(factors + triple, sigmoid * inverse, mask=live)


@triton.jit(do_not_specialize=["first", "count", "item_offset"])
def _gradient_kernel(
    users, pos, neg, member, out, factors, keys, order, number, begin, gradient, first, count, item_offset, share,
    DIM: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """g of each distinct row times `share`; `first` and `count` are of occurrences, three a triple."""
    segment = tl.load(number + first)
    if ACROSS > 1:
        _, head, length = long_segment(keys, number, begin, first, count)
    else:
        last = tl.load(number + first + count - 1) + 1
        _, head, length = short_segments(keys, begin, segment, last, BLOCK)
    column = tl.arange(0, COLS)
    total = tl.zeros([BLOCK * ACROSS, COLS], tl.float32)
    step = tl.arange(0, ACROSS) if ACROSS > 1 else tl.zeros([BLOCK], tl.int32)
    for done in range(0, tl.max(length), ACROSS):
        have = done + step < length
        occurrence = tl.load(order + head + done + step, mask=have, other=0)
        triple = occurrence // 3
        role = occurrence - 3 * triple
        of_user = have & (role == 0)
        user = tl.load(users + triple, mask=have, other=0)
        liked = item_offset + tl.load(pos + triple, mask=have, other=0)
        other = item_offset + tl.load(neg + triple, mask=have, other=0)
        # d loss / d user = c (neg - pos), d pos = -c user, d neg = c user
        partner = _mean_rows(out, member, tl.where(of_user, other, user), have, column, DIM)
        minus = _mean_rows(out, member, liked, of_user, column, DIM)
        factor = tl.load(factors + triple - first // 3, mask=have, other=0)
        total += tl.where(role == 1, -factor, factor)[:, None] * (partner - minus)
    if ACROSS > 1:
        total = tl.sum(total, 0)[None, :]
    live = length > 0
    place = tl.load(number + head, mask=live, other=0) - segment
    inside = live[:, None] & (column < DIM)[None, :]
    tl.store(gradient + place[:, None] * DIM + column[None, :], share * total, mask=inside)


def batch_gradient(
    triples: tuple[Tensor, Tensor, Tensor], segments: Segments, item_offset: int, first: int, count: int, share: float,
    member: Tensor, mean: Tensor, factors: Tensor, loss: Tensor, gradient: Tensor,
) -> None:  # fmt: skip
    """Losses of the triples [first, first + count), and the gradient of their distinct rows times `share`.

    Args:
        segments: of the rows of all triples, three a triple, by mini-batch.
        member: int32 [nodes], the number of a row in the mini-batch.
        mean: float32 [distinct, dim]; `gradient` has its shape.
        factors: float32, room for one a triple.
        loss: float32, of all triples.
    """
    nodes, dim = member.numel(), mean.shape[1]
    how = {"DIM": dim, "COLS": 32 * words_of(dim)}
    block = rows_of(dim, SCORE_SLOTS)
    tensors, numbers = (*triples, member, mean, factors), (first, count, item_offset, 1 / count)
    launch(_triples_kernel, count, block, *tensors, loss, *numbers, **how, BLOCK=block)
    block = rows_of(dim, GRADIENT_SLOTS)
    args = (*tensors, *segments, gradient, 3 * first, 3 * count, item_offset, share)
    launch(_gradient_kernel, min(3 * count, nodes), block, *args, **how, BLOCK=block, ACROSS=1)
    launch(_gradient_kernel, long_work(3 * count), LONG.value, *args, **how, BLOCK=1, ACROSS=block)
