"""sample_synthetic in Triton: draws from the generated stream of `csrc/core/synthetic.h`, of which nothing is stored.

A program takes 64 draws: the user of each, the degree and tastes of the user, one of its interactions, and an item that
is none of them. To see that, all interactions of the users are drawn again, two a Philox block and four blocks of each
user side by side; draws of one program wait for the user with the most. Nothing is read; 24 bytes a draw are written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels.numbers import STREAM_SAMPLE, STREAM_SYNTHETIC, philox
from recsparse.triton_kernels.sample import bounded32, check_draws, halves, permuted
from recsparse.triton_kernels.tile import launch

BLOCK = 64
CLUSTER_ITEMS = 100  # kClusterItems
MOST_DEGREE = 1024  # kMaxSyntheticDegree
TRIES = tl.constexpr(4)  # of an independent negative; then the next item that is none
PROFILE = tl.constexpr(-1)  # kProfileDraw
ACROSS = 4


@triton.jit
def _power_law(random, n, OCTAVES: tl.constexpr):
    """Rank in [0, n), int64, close to log-uniform over the octaves; integers only, as everywhere."""
    x = random.to(tl.int64) * OCTAVES
    f = (x & 0xFFFFFFFF) >> 1
    slope = (21 << 26) + ((f * 11) >> 5)
    power = ((((f * slope) >> 31) + (1 << 31)) << (x >> 32)) - (1 << 31)
    return ((power // ((1 << OCTAVES) - 1)) * n) >> 31


@triton.jit
def _place(first, second, third, choice, random, n_items, clusters):
    """Place of an interaction before ids are scrambled, from the user's tastes and two random words."""
    sixteenth = choice >> 28
    cluster = _power_law(choice << 4, clusters, 4)
    cluster = tl.where(sixteenth < 13, third, cluster)
    cluster = tl.where(sixteenth < 11, second, cluster)
    cluster = tl.where(sixteenth < 7, first, cluster)
    size = (n_items - cluster + clusters - 1) // clusters
    return cluster + clusters * _power_law(random, size, 4)


@triton.jit
def _has(place, user, degree, first, second, third, seed, n_items, clusters, ACROSS: tl.constexpr):
    """Whether `place` is an interaction of each user."""
    found = degree < 0
    for done in range(0, (tl.max(degree) + 1) // 2, ACROSS):
        pair = done + tl.arange(0, ACROSS)[None, :]
        w0, w1, w2, w3 = philox(seed, user[:, None], pair, STREAM_SYNTHETIC)
        even = _place(first[:, None], second[:, None], third[:, None], w0, w1, n_items, clusters)
        odd = _place(first[:, None], second[:, None], third[:, None], w2, w3, n_items, clusters)
        same = (even == place[:, None]) & (2 * pair < degree[:, None])
        same = same | ((odd == place[:, None]) & (2 * pair + 1 < degree[:, None]))
        found = found | (tl.max(same.to(tl.int32), 1) > 0)
    return found


@triton.jit(
    do_not_specialize=[
        "n_users", "n_items", "clusters", "least", "degrees", "seed", "start", "count", "low_bits", "low_mask",
        "high_mask",
    ]
)  # fmt: skip
def _sample_synthetic_kernel(
    users, pos, neg, n_users, n_items, clusters, least, degrees, seed, start, count, low_bits, low_mask, high_mask,
    BLOCK: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < count
    draw = start + at
    w0, w1, w2, w3 = philox(seed, draw, at * 0, STREAM_SAMPLE)
    random = (w1.to(tl.uint64) << 32) | w0.to(tl.uint64)
    user = tl.umulhi(random, (at * 0 + n_users).to(tl.uint64)).to(tl.int64)
    p0, p1, p2, p3 = philox(seed, user, at * 0 + PROFILE, STREAM_SYNTHETIC)
    degree = least + _power_law(p0, degrees, 6)
    first = _power_law(p1, clusters, 4)
    second = _power_law(p2, clusters, 4)
    third = _power_law(p3, clusters, 4)
    chosen = bounded32(w2, degree)
    c0, c1, c2, c3 = philox(seed, user, chosen // 2, STREAM_SYNTHETIC)
    odd = chosen % 2 == 1
    liked = _place(first, second, third, tl.where(odd, c2, c0), tl.where(odd, c3, c1), n_items, clusters)
    degree = tl.where(live, degree, 0)
    other = bounded32(w3, at * 0 + n_items)
    attempt = at * 0 + 1
    hit = _has(other, user, degree, first, second, third, seed, n_items, clusters, ACROSS)
    while tl.max(tl.where(hit, 1, 0)) > 0:
        again, _, _, _ = philox(seed, draw, attempt, STREAM_SAMPLE)
        next_one = tl.where(other + 1 == n_items, 0, other + 1)
        next_one = tl.where(attempt < TRIES, bounded32(again, at * 0 + n_items), next_one)
        other = tl.where(hit, next_one, other)
        attempt += 1
        left = tl.where(hit, degree, 0)
        hit = _has(other, user, left, first, second, third, seed, n_items, clusters, ACROSS)
    keys = at * 0 - 1
    liked = permuted(liked, n_items, seed, keys, STREAM_SYNTHETIC, low_bits, low_mask, high_mask)
    other = permuted(other, n_items, seed, keys, STREAM_SYNTHETIC, low_bits, low_mask, high_mask)
    tl.store(users + at, user, mask=live)
    tl.store(pos + at, liked, mask=live)
    tl.store(neg + at, other, mask=live)


def sample_synthetic(
    n_users: int,
    n_items: int,
    min_degree: int,
    max_degree: int,
    seed: int,
    start: int,
    count: int,
    *,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """(users, pos, neg), int64 [count] each; see `recsparse.ops.sample_synthetic`. Nothing waits for the device."""
    check_draws(start, count)
    if n_users < 1:
        raise ValueError(f"n_users: expected at least 1, got {n_users}")
    if not 2 <= n_items < 2**31:
        raise ValueError(f"n_items: expected 2 .. 2^31 - 1, got {n_items}")
    limit = min(MOST_DEGREE, n_items - 1)
    if not 1 <= min_degree <= max_degree <= limit:
        raise ValueError(f"degrees: expected 1 <= min <= max <= {limit}, got {min_degree} and {max_degree}")
    users, pos, neg = (torch.empty(count, dtype=torch.int64, device=device) for _ in range(3))
    clusters = max(1, n_items // CLUSTER_ITEMS)
    numbers = (n_users, n_items, clusters, min_degree, max_degree - min_degree + 1, seed, start, count)
    launch(
        _sample_synthetic_kernel, count, BLOCK, users, pos, neg, *numbers, *halves(n_items), BLOCK=BLOCK, ACROSS=ACROSS
    )
    return users, pos, neg
