"""rank and rank_packed in Triton: the k best unseen items of each user, without a score matrix in memory.

A program takes 32 users and walks the items 64 at a time: scores in registers (products in float32, not in TF32, which
would change the lists), seen items struck out by a pointer into each user's ascending ids, and then rounds in which
each user moves its best remaining item into its list in the place of the worst, until none has a better one: after the
first tiles about one round a tile, a small part of the work of the scores. Bytes: users once, items once a program,
from the second-level cache; lists of 8 bytes an entry.

An entry is one integer, score above item, so entries are totally ordered: lists do not depend on how items are cut, few
users share out the items (*splits*), and a list of more than LONGEST entries is made in several passes, each below the
last entry of the one before.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.lookup import lookup
from recsparse.triton_kernels.tile import launch

LONGEST = 64  # entries of a list in registers
BLOCK_USERS = 32
BLOCK_ITEMS = 64
DEPTH = 16  # columns a step: a thread holds those of its users and of its items
WARPS = 8  # 8 scores a thread, in half the registers of 16: rounds wait, so others must have room to run
STAGES = 2  # loads of a step while the step before is worked on; a third one costs registers
PROGRAMS = 1024  # fill a GPU of 132 processors; few users share out the items, but
LEAST_TILES = 16  # of items are a program's, so that lists have settled for most of them
CHUNK_FLOATS = 1 << 25  # of unpacked rows: 128 MB
LARGEST_NORM = 1e18
EMPTY = -0x7F800000 << 32  # the score of -3.4e38: above those of items struck out, below all others
FULL = 2**63 - 1


@triton.jit
def _keys(score, item):
    """int64 of float32 scores and int64 items below 2^31: ascending in the score, descending in the item."""
    bits = score.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (order.to(tl.int64) << 32) + (0x7FFFFFFF - item)


@triton.jit
def _first_seen(seen, begin, end, item):
    """For each user the position in [begin, end) of its first seen item that is not below `item`."""
    low, high = begin, end
    while tl.max(high - low) > 0:
        middle = (low + high) // 2
        below = (low < high) & (tl.load(seen + middle, mask=low < high, other=0).to(tl.int64) < item)
        high = tl.where(below, high, middle)
        low = tl.where(below, middle + 1, low)
    return low


@triton.jit(do_not_specialize=["n_users", "first", "count", "span", "splits"])
def _rank_kernel(
    users, items, indptr, seen, bounds, lists, n_users, first, count, span, splits,
    DIM: tl.constexpr, USERS: tl.constexpr, ITEMS: tl.constexpr, DEPTH: tl.constexpr, LIST: tl.constexpr,
    BOUNDED: tl.constexpr,
):  # fmt: skip
    """The lists [n_users, splits, LIST] go on with `items` [count, DIM], which are those from number `first` on."""
    program = tl.program_id(0).to(tl.int64)
    split = program % splits
    user = (program // splits) * USERS + tl.arange(0, USERS)
    live = user < n_users
    begin = split * span
    end = tl.minimum(begin + span, count)
    column = tl.arange(0, ITEMS)
    place = lists + ((user * splits + split) * LIST)[:, None] + tl.arange(0, LIST)[None, :]
    best = tl.load(place, mask=live[:, None], other=0)
    stop = tl.load(indptr + user + 1, mask=live, other=0)
    at = _first_seen(seen, tl.load(indptr + user, mask=live, other=0), stop, first + begin)
    struck = tl.load(seen + at, mask=at < stop, other=0x7FFFFFFF).to(tl.int64)
    for tile in range(begin, end, ITEMS):
        row = tile + column
        score = tl.zeros([USERS, ITEMS], tl.float32)
        for done in range(0, DIM, DEPTH):
            depth = done + tl.arange(0, DEPTH)
            left = users + user[:, None] * DIM + depth[None, :]
            right = items + row[:, None] * DIM + depth[None, :]
            inside = (depth < DIM)[None, :]
            score = tl.dot(
                tl.load(left, mask=live[:, None] & inside, other=0),
                tl.trans(tl.load(right, mask=(row < end)[:, None] & inside, other=0)),
                score,
                input_precision="ieee",
            )
        score = tl.where(score == 0, 0.0, score)  # of two zeros, one key
        score = tl.where(live[:, None] & (row < end)[None, :], score, float("-inf"))
        item = first + row
        while tl.min(struck) < first + tile + ITEMS:
            score = tl.where(item[None, :] == struck[:, None], float("-inf"), score)
            at += (struck < first + tile + ITEMS).to(tl.int64)
            struck = tl.load(seen + at, mask=at < stop, other=0x7FFFFFFF).to(tl.int64)
        if BOUNDED:
            bound = tl.load(bounds + user, mask=live, other=0)
            score = tl.where(_keys(score, item[None, :]) < bound[:, None], score, float("-inf"))
        # What the condition reads is used in the body too: a loop whose condition has a variable of its own is
        # compiled to invalid code by Triton 3.6.
        top, where = tl.max(score, 1, return_indices=True)
        key = _keys(top, first + tile + where)
        worst = tl.min(best, 1)
        while tl.max(tl.where(key > worst, 1, 0)) > 0:
            into = (key > worst)[:, None] & (best == worst[:, None])
            best = tl.where(into, key[:, None], best)
            score = tl.where(column[None, :] == where[:, None], float("-inf"), score)
            top, where = tl.max(score, 1, return_indices=True)
            key = _keys(top, first + tile + where)
            worst = tl.min(best, 1)
    tl.store(place, best, mask=live[:, None])


Rows = Callable[[int, int], Tensor]  # float32 rows [first, last)


def _require_finite(what: str, rows: Tensor, ids: Tensor | None, first: int) -> None:
    bad = ~(torch.linalg.vector_norm(rows, dim=1) <= LARGEST_NORM)
    if bool(bad.any()):
        at = first + int(bad.nonzero()[0])
        raise ValueError(
            f"rank: {what} row {at if ids is None else int(ids[at])} holds NaN, infinity or numbers too large to "
            f"multiply; expected norms up to {LARGEST_NORM:.0e}"
        )


def _pass(
    sides: tuple[Rows, Rows], sizes: tuple[int, int, int], seen: tuple[Tensor, Tensor], k: int, bounds: Tensor | None,
    ids: Tensor | None,
) -> Tensor:  # fmt: skip
    """int64 [n_users, k]: the best keys below `bounds`, descending; keys without a score where there are fewer."""
    (user_rows, item_rows), (n_users, n_items, dim) = sides, sizes
    device = seen[0].device
    length = max(16, triton.next_power_of_2(k))
    chunk = max(BLOCK_ITEMS, CHUNK_FLOATS // dim)
    blocks = triton.cdiv(n_users, BLOCK_USERS)
    splits = max(1, min(PROGRAMS // max(1, blocks), min(n_items, chunk) // (LEAST_TILES * BLOCK_ITEMS)))
    slots = torch.arange(length, device=device)
    # Entries that are there from the start: below every score, and above every one where there is no room.
    start = torch.where(slots < k, EMPTY + slots, FULL - slots)
    lists = start.repeat(n_users, splits, 1)
    for first in range(0, n_items, chunk):
        last = min(n_items, first + chunk)
        items = item_rows(first, last)
        if bounds is None:
            _require_finite("item", items, None, first)
        span = triton.cdiv(triton.cdiv(last - first, splits), BLOCK_ITEMS) * BLOCK_ITEMS
        for low in range(0, n_users, chunk):
            high = min(n_users, low + chunk)
            users = user_rows(low, high)
            if bounds is None and first == 0:
                _require_finite("user", users, ids, low)
            limits = lists if bounds is None else bounds[low:high]
            tensors = (users, items, seen[0][low:], seen[1], limits, lists[low:high])
            shape = {
                "DIM": dim,
                "USERS": BLOCK_USERS,
                "ITEMS": BLOCK_ITEMS,
                "LIST": length,
                "BOUNDED": bounds is not None,
            }
            work = (triton.cdiv(high - low, BLOCK_USERS) * splits, 1)
            numbers = (high - low, first, last - first, span, splits)
            launch(_rank_kernel, *work, *tensors, *numbers, **shape, DEPTH=DEPTH, num_warps=WARPS, num_stages=STAGES)
    return lists[:, :, :k].reshape(n_users, splits * k).sort(1, descending=True).values[:, :k]


def _ranked(
    sides: tuple[Rows, Rows], sizes: tuple[int, int, int], indptr: Tensor, seen: Tensor, k: int, screen: int,
    ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    op, (n_users, n_items, _) = "rank", sizes
    check.vector(op, "indptr", indptr, torch.int64, indptr.device)
    check.vector(op, "seen", seen, torch.int32, indptr.device)
    if k < 1:
        raise ValueError(f"{op}: k is {k}, expected at least 1")
    if not 0 <= screen <= 2:
        raise ValueError(f"{op}: screen is {screen}, expected 0 (auto) .. 2 (int8)")
    if n_items >= 2**31:
        raise ValueError(f"{op}: {n_items} items, expected fewer than 2^31")
    if indptr.numel() != n_users + 1:
        raise ValueError(f"{op}: indptr has {indptr.numel()} entries, expected {n_users + 1} (users + 1)")
    if not bool((indptr[0] >= 0) & (indptr[-1] <= seen.numel()) & (indptr[1:] >= indptr[:-1]).all()):
        raise ValueError(f"{op}: indptr must ascend within 0..{seen.numel()}, the length of seen")
    keys = torch.full((n_users, k), EMPTY, device=indptr.device)
    bounds = None
    for done in range(0, min(k, n_items) if n_users else 0, LONGEST):
        part = keys[:, done : done + LONGEST]
        part.copy_(_pass(sides, sizes, (indptr, seen), part.shape[1], bounds, ids))
        bounds = part[:, -1].contiguous()
    order = keys >> 32
    nothing = order == EMPTY >> 32
    bits = torch.where(order < 0, order ^ 0x7FFFFFFF, order).to(torch.int32)
    items = torch.where(nothing, -1, 0x7FFFFFFF - (keys & 0x7FFFFFFF)).to(torch.int32)
    return items, bits.view(torch.float32).masked_fill(nothing, -torch.inf)


def rank(users: Tensor, items: Tensor, indptr: Tensor, seen: Tensor, k: int, screen: int = 0) -> tuple[Tensor, Tensor]:
    """(items int32 [n, k], scores float32 [n, k]); see `recsparse.ops.rank`. There is one way to screen.

    Reads back whether all rows can be ranked.
    """
    for name, rows in (("users", users), ("items", items)):
        check.tensor("rank", name, rows, torch.float32, indptr.device)
        if rows.dim() != 2 or not 1 <= rows.shape[1] <= 4096:
            raise ValueError(f"rank: {name} has shape {list(rows.shape)}, expected [n, d] with d in 1..4096")
    if users.shape[1] != items.shape[1]:
        raise ValueError(f"rank: user rows have {users.shape[1]} columns but item rows have {items.shape[1]}")
    sizes = (users.shape[0], items.shape[0], users.shape[1])
    sides = (lambda first, last: users[first:last], lambda first, last: items[first:last])
    return _ranked(sides, sizes, indptr, seen, k, screen)


def rank_packed(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    users: Tensor,
    indptr: Tensor,
    seen: Tensor,
    k: int,
    item_offset: int,
    kind: int,
    rows: int,
    dim: int,
    screen: int = 0,
) -> tuple[Tensor, Tensor]:
    """The same with the rows of a table, of which at most 128 MB a side are dense; see `recsparse.ops.rank_packed`."""
    check.table("rank", index, cols, values, kind, rows, dim)
    check.vector("rank", "users", users, torch.int64, index.device)
    if not 0 <= item_offset <= rows:
        raise ValueError(f"rank: item_offset is {item_offset}, expected 0..{rows}")
    check.ids("rank", "users", users, rows)

    def unpacked(ids: Tensor) -> Tensor:
        return lookup(index, cols, values, ids, kind, rows, dim, 2).float()

    def user_rows(first: int, last: int) -> Tensor:
        return unpacked(users[first:last])

    def item_rows(first: int, last: int) -> Tensor:
        return unpacked(torch.arange(item_offset + first, item_offset + last, device=index.device))

    sizes = (users.numel(), rows - item_offset, dim)
    return _ranked((user_rows, item_rows), sizes, indptr, seen, k, screen, users)
