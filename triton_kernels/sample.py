"""sample in Triton: draws of (user, positive, negative) as pure functions of (seed, draw number).

The same Philox draws as `csrc/core/sampling.h`, a block of 256 a program. Bytes a draw: two entries of indptr, a user
id, a positive, and the bisections (of the items of the row, for the negative; of indptr, in mode `interactions`), whose
upper levels stay in the caches; 24 written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.numbers import STREAM_SAMPLE, STREAM_SHUFFLE, mix32, philox
from recsparse.triton_kernels.search import lower_bound
from recsparse.triton_kernels.tile import launch

USERS, INTERACTIONS = tl.constexpr(0), tl.constexpr(1)
BLOCK = 256
NO_ROW = 2**62


@triton.jit
def bounded32(random, n):
    """Uniform int64 in [0, n) from uint32 words: the high half of the product; n below 2^32."""
    return ((random.to(tl.uint64) * n.to(tl.uint64)) >> 32).to(tl.int64)


@triton.jit
def _round(high, low, key, mask):
    return high ^ (mix32(low ^ key) & mask)


@triton.jit
def permuted(position, n, seed, number, STREAM: tl.constexpr, low_bits, low_mask, high_mask):
    """A keyed permutation of [0, n), int64: a Feistel network walked until it fits. Its keys are those of `number`."""
    zero = number * 0
    k0, k1, k2, k3 = philox(seed, number, zero, STREAM)
    k4, k5, k6, k7 = philox(seed, number, zero + 1, STREAM)
    low_mask = low_mask.to(tl.uint32)
    high_mask = high_mask.to(tl.uint32)
    todo = position >= 0
    while tl.max(todo.to(tl.int32)) > 0:
        low = position.to(tl.uint32) & low_mask
        high = (position >> low_bits).to(tl.uint32) & high_mask
        high = _round(high, low, k0, high_mask)
        low = _round(low, high, k1, low_mask)
        high = _round(high, low, k2, high_mask)
        low = _round(low, high, k3, low_mask)
        high = _round(high, low, k4, high_mask)
        low = _round(low, high, k5, low_mask)
        high = _round(high, low, k6, high_mask)
        low = _round(low, high, k7, low_mask)
        position = tl.where(todo, (high.to(tl.int64) << low_bits) | low.to(tl.int64), position)
        todo = position >= n
    return position


def halves(n: int) -> tuple[int, int, int]:
    """(bits of the lower half, and masks of both halves) of the network that permutes [0, n)."""
    bits = max(0, n - 1).bit_length()
    low = (bits + 1) // 2
    return low, (1 << low) - 1, (1 << (bits - low)) - 1


@triton.jit
def _absent(items, begin, degree, rank):
    """The `rank`-th id that is not among the ascending items [begin, begin + degree).

    items[t] - t ids below items[t] are absent, so it is rank + |{t: items[t] - t <= rank}|.
    """
    low = rank * 0
    high = low + degree
    while tl.max(high - low) > 0:
        middle = (low + high) // 2
        item = tl.load(items + begin + middle, mask=low < high, other=0).to(tl.int64)
        below = (low < high) & (item - middle <= rank)
        high = tl.where(below, high, middle)
        low = tl.where(below, middle + 1, low)
    return rank + low


@triton.jit(do_not_specialize=["rows", "nnz", "n_items", "seed", "start", "count", "low_bits", "low_mask", "high_mask"])
def _sample_kernel(
    indptr, items, user_of, users, pos, neg, bad, rows, nnz, n_items, seed, start, count,
    low_bits, low_mask, high_mask, MODE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < count
    draw = start + at
    w0, w1, w2, w3 = philox(seed, draw, at * 0, STREAM_SAMPLE)
    if MODE == USERS:
        random = (w1.to(tl.uint64) << 32) | w0.to(tl.uint64)
        row = tl.umulhi(random, (at * 0 + rows).to(tl.uint64)).to(tl.int64)
        place = at * 0
    else:
        epoch = draw // nnz
        place = permuted(draw - epoch * nnz, nnz, seed, epoch, STREAM_SHUFFLE, low_bits, low_mask, high_mask)
        row = lower_bound(indptr, rows, place + 1) - 1
    begin = tl.load(indptr + row, mask=live, other=0)
    end = tl.load(indptr + row + 1, mask=live, other=1)
    degree = end - begin
    wrong = live & ((begin < 0) | (degree <= 0) | (end > nnz) | (degree >= n_items))
    if tl.max(wrong.to(tl.int32)) > 0:
        tl.atomic_min(bad, tl.min(tl.where(wrong, row, 1 << 62)))
    live = live & (wrong == 0)
    degree = tl.where(live, degree, 1)
    if MODE == USERS:
        place = begin + bounded32(w2, degree)
    rank = bounded32(w3, n_items - degree)
    tl.store(users + at, tl.load(user_of + row, mask=live, other=0), mask=live)
    tl.store(pos + at, tl.load(items + place, mask=live, other=0).to(tl.int64), mask=live)
    tl.store(neg + at, _absent(items, begin, tl.where(live, degree, 0), rank), mask=live)


def check_draws(start: int, count: int) -> None:
    """Numbers of draws that there are."""
    if start < 0 or count < 0 or start > 2**63 - 1 - count:
        raise ValueError(f"start and count must not be negative, got {start} and {count}")


def sample(
    indptr: Tensor, items: Tensor, users: Tensor, n_items: int, seed: int, start: int, count: int, mode: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(users, pos, neg), int64 [count] each; see `recsparse.ops.sample`."""
    op, device = "sample", indptr.device
    check.vector(op, "indptr", indptr, torch.int64, device)
    check.vector(op, "items", items, torch.int32, device)
    check.vector(op, "users", users, torch.int64, device)
    check_draws(start, count)
    rows, nnz = users.numel(), items.numel()
    if indptr.numel() != rows + 1:
        raise ValueError(f"indptr: {rows + 1} entries are expected (users + 1), got {indptr.numel()}")
    if not 1 <= n_items < 2**31:
        raise ValueError(f"n_items: expected 1 .. 2^31 - 1, got {n_items}")
    if mode not in (USERS.value, INTERACTIONS.value):
        raise ValueError(f"mode: expected 0 (users) or 1 (interactions), got {mode}")
    if count and not (rows and nnz):
        raise ValueError("nothing to draw from: no user has both a positive and a negative")
    out = tuple(torch.empty(count, dtype=torch.int64, device=device) for _ in range(3))
    bad = torch.full((1,), NO_ROW, dtype=torch.int64, device=device)
    tensors = (indptr, items, users, *out, bad, rows, nnz, n_items, seed, start, count)
    launch(_sample_kernel, count, BLOCK, *tensors, *halves(nnz), MODE=mode, BLOCK=BLOCK)
    ends = (indptr[0] == 0) & (indptr[-1] == nnz)
    if device.type == "cuda":
        torch._assert_async(
            ends & (bad[0] == NO_ROW), "sample: indptr does not give rows of 1 .. n_items - 1 positives"
        )
        return out
    if not bool(ends):
        raise ValueError(f"indptr: must start at 0 and end at {nnz}, the number of items")
    if int(bad) != NO_ROW:
        raise ValueError(f"row {int(bad)}: expected 1 .. n_items - 1 positives inside items")
    return out
