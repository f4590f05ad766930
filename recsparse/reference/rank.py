"""Reference of `rank` and `rank_packed`: every score, in float64, and a stable sort."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse.reference.rows import unpack


def rank(users: Tensor, items: Tensor, indptr: Tensor, seen: Tensor, k: int, screen: int = 0) -> tuple[Tensor, Tensor]:
    """(items int32 [n, k], scores float32 [n, k]); see `recsparse.ops.rank`. There is nothing to screen."""
    for name, rows in (("item", items), ("user", users)):
        bad = ~(rows.double().norm(dim=1) <= 1e18)
        if bool(bad.any()):
            raise ValueError(f"rank: {name} row {int(bad.nonzero()[0])} holds NaN, infinity or numbers too large")
    found = torch.full((len(users), k), -1, dtype=torch.int32)
    best = torch.full((len(users), k), -torch.inf)
    for u in range(len(users)):
        scores = (items.double() @ users[u].double()).float()
        unseen = torch.ones(len(items), dtype=torch.bool)
        unseen[seen[indptr[u] : indptr[u + 1]].long()] = False
        ids = unseen.nonzero()[:, 0]
        order = ids[scores[ids].sort(descending=True, stable=True).indices[:k]]
        found[u, : len(order)] = order.int()
        best[u, : len(order)] = scores[order]
    return found, best


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
    """The same with the rows of a table."""
    if bool(((users < 0) | (users >= rows)).any()):
        raise IndexError(f"rank: an id is out of range, expected 0..{rows - 1}")
    dense = unpack(index, cols, values, kind, rows, dim)[0].float()
    return rank(dense[users], dense[item_offset:], indptr, seen, k)
