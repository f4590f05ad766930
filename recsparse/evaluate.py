"""Full-ranking evaluation: every user against the whole catalogue, never sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsparse import _host, ops
from recsparse.data import Dataset, Interactions
from recsparse.errors import UserError
from recsparse.metrics import Metrics, per_user, ranking_metrics

Rows: TypeAlias = "Tensor | Callable[[Tensor], Tensor]"

# Bytes of the score buffer, and of the item rows that are held dense at a time.
TILE_BYTES = 64 << 20


def evaluate(
    model: Any,
    dataset: Dataset,
    *,
    split: str = "valid",
    ks: Sequence[int] = (20,),
    exclude: Interactions | None = None,
) -> Metrics:
    """Rank all items for each user that has items in `split`, by dot product, and average the metrics.

    Args:
        model: a joint `PackedTable` (users are rows 0 .. n_users - 1, item i is row n_users + i), or a pair
            (users, items). Each of the two is a float32 tensor [n, d], or a function from int64 ids [n] to float32
            rows [n, d], which lets a packed table be ranked without ever being dense.
        split: `valid` or `test`: the part to rank for.
        ks: cut-offs K of the metrics.
        exclude: items that are not ranked, per user. Default: train; with `split="test"` under protocol `valid` also
            the validation items.

    Returns:
        Metrics (`recall@K`, `ndcg@K`, `precision@K`, `hit@K`, `mrr@K`), the users averaged over and those dropped.

    Raises:
        UserError: a NaN in the scores, no items in `split`, K out of range, or rows of a wrong shape.
    """
    wanted = _wanted(dataset, split)
    users = np.flatnonzero(wanted.degrees())
    ranking = rank(model, dataset, users, max(ks), split=split, exclude=exclude)
    target = wanted.rows(users)
    metrics = ranking_metrics(ranking, target.indptr, target.items, ks)
    return Metrics(metrics.values, metrics.users, dataset.n_users - metrics.users)


def rank(
    model: Any,
    dataset: Dataset,
    users: NDArray[np.int64],
    k: int,
    *,
    split: str = "test",
    exclude: Interactions | None = None,
) -> NDArray[np.int32]:
    """Best k items of each of `users`, int32 [len(users), k], best first, -1 where fewer can be ranked.

    Equal scores rank by lower item id. The scores of a tile of users and the dense item rows stay within about 64 MB
    each. Arguments and errors as `evaluate`.
    """
    if not 1 <= k <= dataset.n_items:
        raise UserError(f"K is {k}; expected 1 .. {dataset.n_items}, the number of items")
    user_rows, item_rows = _providers(model, dataset)
    seen = _excluded(dataset, split) if exclude is None else exclude
    tile = max(1, TILE_BYTES // (4 * dataset.n_items))
    device = torch.device("cpu") if isinstance(model, tuple) else model.values.device
    scores = torch.empty(min(tile, max(1, len(users))), dataset.n_items, device=device)
    ranking = np.empty((len(users), k), np.int32)
    with torch.no_grad():
        blocks = _item_blocks(item_rows, dataset.n_items)
        for begin in range(0, len(users), tile):
            ids = users[begin : begin + tile]
            left = user_rows(torch.from_numpy(ids))
            part = scores[: len(ids)]
            for first, right in blocks():
                if left.shape[1:] != right.shape[1:]:
                    raise UserError(f"user rows are {tuple(left.shape)} but item rows are {tuple(right.shape)}")
                torch.mm(left, right.T, out=part[:, first : first + len(right)])
            own = seen.rows(ids)
            try:
                best, _ = _host.topk_rows(part.cpu().numpy(), own.indptr, own.items, k, torch.get_num_threads())
            except ValueError as error:
                raise UserError(f"cannot rank: {error} of users {ids[0]} .. {ids[-1]}; the table holds NaN") from None
            ranking[begin : begin + len(ids)] = best
    return ranking


def popularity_baseline(
    dataset: Dataset, *, split: str = "test", ks: Sequence[int] = (20,), exclude: Interactions | None = None
) -> Metrics:
    """Metrics of ranking every user's items by number of train users: what any model has to beat."""
    # Counts are exact in float32 up to 2^24 users of an item.
    items = torch.from_numpy(dataset.popularity.astype(np.float32))[:, None]
    return evaluate((torch.ones(dataset.n_users, 1), items), dataset, split=split, ks=ks, exclude=exclude)


def by_popularity(
    model: Any, dataset: Dataset, *, split: str = "test", k: int = 20, buckets: int = 4
) -> list[dict[str, float]]:
    """Recall@k by popularity of the wanted items: items ordered by train users and cut so that each bucket holds about
    an equal share of train interactions, most popular first.

    Returns:
        One dictionary a bucket: `items` in it, `pairs` wanted in `split`, and `recall`, the share of those pairs that
        is ranked in the top k. Raises as `evaluate`.
    """
    if buckets < 1:
        raise UserError(f"buckets is {buckets}; expected at least 1")
    wanted = _wanted(dataset, split)
    users = np.flatnonzero(wanted.degrees())
    ranking = rank(model, dataset, users, k, split=split)
    order = np.argsort(-dataset.popularity, kind="stable")
    share = np.cumsum(dataset.popularity[order]) - dataset.popularity[order]
    bucket = np.empty(dataset.n_items, np.int64)
    bucket[order] = np.minimum(buckets * share // max(1, dataset.train.nnz), buckets - 1)
    out = []
    for b in range(buckets):
        pairs = bucket[wanted.items] == b
        owners = np.repeat(np.arange(wanted.n_users), wanted.degrees())[pairs]
        indptr = np.searchsorted(owners, np.append(users, wanted.n_users))
        part = per_user(ranking, indptr, wanted.items[pairs], (k,))[f"recall@{k}"]
        found = float((part * np.diff(indptr)).sum())
        total = int(pairs.sum())
        out.append({"items": int((bucket == b).sum()), "pairs": total, "recall": found / total if total else 0.0})
    return out


def _wanted(dataset: Dataset, split: str) -> Interactions:
    if split not in ("valid", "test"):
        raise UserError(f"unknown split {split!r}; expected 'valid' or 'test'")
    wanted = dataset.parts()[split]
    if not wanted.nnz:
        raise UserError(f"{dataset.name}: nothing to evaluate, the {split} part has no interactions")
    return wanted


def _excluded(dataset: Dataset, split: str) -> Interactions:
    return dataset.train.union(dataset.valid) if split == "test" and dataset.valid.nnz else dataset.train


def _providers(model: Any, dataset: Dataset) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    if isinstance(model, tuple):
        return _provider(model[0], dataset.n_users, "user"), _provider(model[1], dataset.n_items, "item")
    if model.rows != dataset.n_users + dataset.n_items:
        raise UserError(
            f"the table has {model.rows} rows, expected {dataset.n_users} users + {dataset.n_items} items "
            f"of {dataset.name}"
        )
    device = model.values.device
    return (
        lambda ids: ops.lookup(model, ids.to(device)).float(),
        lambda ids: ops.lookup(model, ids.to(device) + dataset.n_users).float(),
    )


def _provider(rows: Rows, count: int, what: str) -> Callable[[Tensor], Tensor]:
    if not isinstance(rows, Tensor):
        return rows
    if rows.dim() != 2 or len(rows) != count or rows.dtype != torch.float32:
        raise UserError(f"{what} rows are {rows.dtype} {tuple(rows.shape)}; expected float32 [{count}, d]")
    return lambda ids: rows[ids]


def _item_blocks(item_rows: Callable[[Tensor], Tensor], n_items: int) -> Callable[[], Any]:
    """A function that yields (first id, dense rows) over all items; rows are kept if they fit in one block."""
    dim = item_rows(torch.zeros(1, dtype=torch.int64)).shape[1]
    size = max(1, TILE_BYTES // (4 * max(1, dim)))
    if size >= n_items:
        whole = item_rows(torch.arange(n_items))
        return lambda: [(0, whole)]
    return lambda: ((b, item_rows(torch.arange(b, min(b + size, n_items)))) for b in range(0, n_items, size))
