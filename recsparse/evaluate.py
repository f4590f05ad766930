"""Full-ranking evaluation: every user against the whole catalogue, never sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsparse import ops
from recsparse.data import Dataset, Interactions, StreamedDataset
from recsparse.errors import UserError
from recsparse.metrics import Metrics, per_user, ranking_metrics
from recsparse.table import PackedTable

Model: TypeAlias = "PackedTable | tuple[Tensor, Tensor]"


def evaluate(
    model: Model,
    dataset: Dataset | StreamedDataset,
    *,
    split: str = "valid",
    ks: Sequence[int] = (20,),
    exclude: Interactions | None = None,
) -> Metrics:
    """Rank all items for each user that has items in `split`, by dot product, and average the metrics.

    Of a `StreamedDataset`, for a sample of users; every one of them still against the whole catalogue.

    Args:
        model: a joint `PackedTable` (users are rows 0 .. n_users - 1, item i is row n_users + i), or a pair
            (users, items) of float32 tensors [n, d] on one device. The table is ranked as it is, without ever being
            dense; on the device where it is.
        split: `valid` or `test`: the part to rank for.
        ks: cut-offs K of the metrics.
        exclude: items that are not ranked, per user. Default: train; with `split="test"` under protocol `valid` also
            the validation items.

    Returns:
        Metrics (`recall@K`, `ndcg@K`, `precision@K`, `hit@K`, `mrr@K`), the users averaged over and those dropped.

    Raises:
        UserError: a row that holds NaN, no items in `split`, K out of range, or rows of a wrong shape.
    """
    target = dataset.target(split)
    seen = target.seen if exclude is None else exclude.rows(target.users)
    ranking = _rank(model, dataset, target.users, seen, max(ks))
    metrics = ranking_metrics(ranking, target.wanted.indptr, target.wanted.items, ks)
    return Metrics(metrics.values, metrics.users, dataset.n_users - metrics.users)


def rank(
    model: Model,
    dataset: Dataset | StreamedDataset,
    users: NDArray[np.int64],
    k: int,
    *,
    split: str = "test",
    exclude: Interactions | None = None,
) -> NDArray[np.int32]:
    """Best k items of each of `users`, int32 [len(users), k], best first, -1 where fewer can be ranked.

    Equal scores rank by lower item id. Working memory is that of `recsparse.ops.rank`. Arguments and errors as
    `evaluate`.
    """
    return _rank(model, dataset, users, dataset.seen(users, split) if exclude is None else exclude.rows(users), k)


def _rank(
    model: Model, dataset: Dataset | StreamedDataset, users: NDArray[np.int64], own: Interactions, k: int
) -> NDArray[np.int32]:
    if not 1 <= k <= dataset.n_items:
        raise UserError(f"K is {k}; expected 1 .. {dataset.n_items}, the number of items")
    ids, indptr, seen = (torch.from_numpy(array) for array in (users, own.indptr, own.items))
    try:
        if isinstance(model, tuple):
            left, right = _checked(model, dataset)
            ids, indptr, seen = (tensor.to(left.device) for tensor in (ids, indptr, seen))
            ranking, _ = ops.rank(left.index_select(0, ids), right, indptr, seen, k)
        else:
            if model.rows != dataset.n_users + dataset.n_items:
                raise UserError(
                    f"the table has {model.rows} rows, expected {dataset.n_users} users + {dataset.n_items} items "
                    f"of {dataset.name}"
                )
            ids, indptr, seen = (tensor.to(model.values.device) for tensor in (ids, indptr, seen))
            ranking, _ = ops.rank_packed(model, ids, indptr, seen, k, item_offset=dataset.n_users)
        ops.raise_device_errors(ranking)
    except ValueError as error:
        raise UserError(f"cannot rank: {str(error).splitlines()[0].removeprefix('rank: ')}") from None
    return ranking.cpu().numpy()


def popularity_baseline(
    dataset: Dataset, *, split: str = "test", ks: Sequence[int] = (20,), exclude: Interactions | None = None
) -> Metrics:
    """Metrics of ranking every user's items by number of train users: what any model has to beat."""
    # Counts are exact in float32 up to 2^24 users of an item.
    items = torch.from_numpy(dataset.popularity.astype(np.float32))[:, None]
    return evaluate((torch.ones(dataset.n_users, 1), items), dataset, split=split, ks=ks, exclude=exclude)


def by_popularity(
    model: Model, dataset: Dataset, *, split: str = "test", k: int = 20, buckets: int = 4
) -> list[dict[str, float]]:
    """Recall@k by popularity of the wanted items: items ordered by train users and cut so that each bucket holds about
    an equal share of train interactions, most popular first.

    Returns:
        One dictionary a bucket: `items` in it, `pairs` wanted in `split`, and `recall`, the share of those pairs that
        is ranked in the top k. Raises as `evaluate`.
    """
    if buckets < 1:
        raise UserError(f"buckets is {buckets}; expected at least 1")
    target = dataset.target(split)
    wanted = target.wanted
    ranking = _rank(model, dataset, target.users, target.seen, k)
    order = np.argsort(-dataset.popularity, kind="stable")
    share = np.cumsum(dataset.popularity[order]) - dataset.popularity[order]
    bucket = np.empty(dataset.n_items, np.int64)
    bucket[order] = np.minimum(buckets * share // max(1, dataset.train.nnz), buckets - 1)
    out = []
    for b in range(buckets):
        pairs = bucket[wanted.items] == b
        owners = np.repeat(np.arange(wanted.n_users), wanted.degrees())[pairs]
        indptr = np.searchsorted(owners, np.arange(wanted.n_users + 1))
        part = per_user(ranking, indptr, wanted.items[pairs], (k,))[f"recall@{k}"]
        found = float((part * np.diff(indptr)).sum())
        total = int(pairs.sum())
        out.append({"items": int((bucket == b).sum()), "pairs": total, "recall": found / total if total else 0.0})
    return out


def _checked(model: tuple[Tensor, Tensor], dataset: Dataset | StreamedDataset) -> tuple[Tensor, Tensor]:
    left, right = model
    for rows, count, what in ((left, dataset.n_users, "user"), (right, dataset.n_items, "item")):
        if rows.dim() != 2 or len(rows) != count or rows.dtype != torch.float32:
            raise UserError(f"{what} rows are {rows.dtype} {tuple(rows.shape)}; expected float32 [{count}, d]")
    if left.shape[1] != right.shape[1]:
        raise UserError(f"user rows are {tuple(left.shape)} but item rows are {tuple(right.shape)}")
    return left.detach(), right.detach().contiguous()
