"""Reference of `sample` and `sample_synthetic`: bit-equal to the kernels, written for reading."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse.reference.philox import (
    MASK,
    STREAM_SAMPLE,
    STREAM_SYNTHETIC,
    bounded32,
    bounded64,
    philox,
    shuffle_keys,
    shuffled,
)

PROFILE_DRAW = MASK
CLUSTER_ITEMS = 100
NEGATIVE_TRIES = 4


def sample(
    indptr: Tensor, items: Tensor, users: Tensor, n_items: int, seed: int, start: int, count: int, mode: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws `start .. start + count`; arguments as `recsparse.ops.sample`, mode 0 = users, 1 = interactions."""
    draws = torch.arange(start, start + count)
    w0, w1, w2, w3 = philox(seed, draws, 0, STREAM_SAMPLE)
    if mode == 0:
        rows = bounded64(w0, w1, len(users))
        begin, degree = indptr[rows], indptr[rows + 1] - indptr[rows]
        place = begin + bounded32(w2, degree)
    else:
        place = torch.empty_like(draws)
        epochs = draws // len(items)
        for epoch in epochs.unique().tolist():
            chosen = epochs == epoch
            place[chosen] = shuffled(draws[chosen] % len(items), len(items), shuffle_keys(seed, epoch))
        rows = torch.searchsorted(indptr, place, right=True) - 1
        begin, degree = indptr[rows], indptr[rows + 1] - indptr[rows]
    rank = bounded32(w3, n_items - degree)
    neg = torch.empty_like(draws)
    for i in range(count):
        positives = set(items[begin[i] : begin[i] + degree[i]].tolist())
        absent = [item for item in range(n_items) if item not in positives]
        neg[i] = absent[int(rank[i])]
    return users[rows], items[place].long(), neg


def power_law(random: Tensor, n: Tensor | int, octaves: int) -> Tensor:
    """Rank in [0, n), close to log-uniform over `octaves` octaves: n (2^(octaves x) - 1) / (2^octaves - 1)."""
    x = random * octaves
    f = (x & MASK) >> 1
    slope = (21 << 26) + ((f * 11) >> 5)
    power = (((1 << 31) + ((f * slope) >> 31)) << (x >> 32)) - (1 << 31)
    return (power // ((1 << octaves) - 1) * n) >> 31


def _places(n_items: int, tastes: tuple[Tensor, ...], choice: Tensor, rank: Tensor) -> Tensor:
    clusters = max(1, n_items // CLUSTER_ITEMS)
    sixteenth = choice >> 28
    cluster = power_law((choice << 4) & MASK, clusters, 4)  # general popularity
    for taste, below in zip(reversed(tastes), (13, 11, 7), strict=True):
        cluster = torch.where(sixteenth < below, taste, cluster)
    size = (n_items - cluster + clusters - 1) // clusters
    return cluster + clusters * power_law(rank, size, 4)


def synthetic_places(users: Tensor, n_items: int, min_degree: int, max_degree: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unscrambled items of users.

    Returns:
        (places int64 [n, max_degree], degrees int64 [n]); places at or after a user's degree mean nothing.
    """
    clusters = max(1, n_items // CLUSTER_ITEMS)
    profile = philox(seed, users, PROFILE_DRAW, STREAM_SYNTHETIC)
    degrees = min_degree + power_law(profile[0], max_degree - min_degree + 1, 6)
    tastes = tuple(power_law(word, clusters, 4)[:, None] for word in profile[1:])
    pairs = torch.arange((max_degree + 1) // 2)
    words = philox(seed, users[:, None], pairs[None], STREAM_SYNTHETIC)
    even = _places(n_items, tastes, words[0], words[1])
    odd = _places(n_items, tastes, words[2], words[3])
    return torch.stack([even, odd], dim=2).flatten(1)[:, :max_degree], degrees


def synthetic_items(places: Tensor, n_items: int, seed: int) -> Tensor:
    """Public ids of places: a keyed permutation of [0, n_items)."""
    return shuffled(places, n_items, shuffle_keys(seed, -1, STREAM_SYNTHETIC))


def sample_synthetic(
    n_users: int, n_items: int, min_degree: int, max_degree: int, seed: int, start: int, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws `start .. start + count` of the generated stream; arguments as `recsparse.ops.sample_synthetic`."""
    draws = torch.arange(start, start + count)
    w0, w1, w2, w3 = philox(seed, draws, 0, STREAM_SAMPLE)
    users = bounded64(w0, w1, n_users)
    places, degrees = synthetic_places(users, n_items, min_degree, max_degree, seed)
    pos = places.gather(1, bounded32(w2, degrees)[:, None])[:, 0]
    own = torch.arange(max_degree) < degrees[:, None]
    neg = bounded32(w3, n_items)
    attempt = 1
    while (hit := ((places == neg[:, None]) & own).any(1)).any():
        if attempt < NEGATIVE_TRIES:
            other = bounded32(philox(seed, draws, attempt, STREAM_SAMPLE)[0], n_items)
        else:
            other = (neg + 1) % n_items
        neg = torch.where(hit, other, neg)
        attempt += 1
    return users, synthetic_items(pos, n_items, seed), synthetic_items(neg, n_items, seed)
