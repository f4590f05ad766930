"""Ranking metrics over a full-catalogue top-K.

For a user u with test items T_u, ranking r_1 .. r_K and hits h_j = [r_j in T_u]:

    recall@K    = sum_j h_j / |T_u|
    precision@K = sum_j h_j / K
    hit@K       = 1 if any h_j else 0
    mrr@K       = 1 / (rank of the first hit), 0 without one
    ndcg@K      = sum_j h_j / log2(j + 1)  /  sum_{j = 1..min(K, |T_u|)} 1 / log2(j + 1)

Each is averaged over the users that have test items; users without any are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsparse.errors import UserError

METRICS = ("recall", "ndcg", "precision", "hit", "mrr")


@dataclass(frozen=True)
class Metrics:
    """Averages by `name@K`, the number of users averaged over, and the number without test items."""

    values: dict[str, float]
    users: int
    dropped_users: int

    def __getitem__(self, key: str) -> float:
        return self.values[key]


def hits(ranking: NDArray[np.int32], indptr: NDArray[np.int64], items: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which ranked items are test items.

    Args:
        ranking: int32 [users, K], best first, -1 where a row ends early.
        indptr, items: CSR of the same users' test items, ascending in each row.

    Returns:
        bool [users, K].
    """
    if ranking.ndim != 2 or len(indptr) != len(ranking) + 1:
        raise UserError(f"ranking has shape {ranking.shape}, expected [{len(indptr) - 1}, K] to match indptr")
    span = 1 + max(int(ranking.max(initial=0)), int(items.max(initial=0)))
    owners = np.repeat(np.arange(len(ranking), dtype=np.int64), np.diff(indptr))
    keys = owners * span + items  # one ascending list over all users
    wanted = np.arange(len(ranking), dtype=np.int64)[:, None] * span + ranking
    place = np.searchsorted(keys, wanted)
    found = np.append(keys, -1)[place] == wanted
    return found & (ranking >= 0)


def per_user(
    ranking: NDArray[np.int32], indptr: NDArray[np.int64], items: NDArray[np.int32], ks: Sequence[int] = (20,)
) -> dict[str, NDArray[np.float64]]:
    """Every metric of every user, float64 [users] by `name@K`; 0 for users without test items.

    Raises:
        UserError: a K below 1 or above the width of `ranking`.
    """
    if any(k < 1 or k > ranking.shape[1] for k in ks):
        raise UserError(f"metrics at K = {list(ks)} need 1 <= K <= {ranking.shape[1]}, the width of the ranking")
    hit = hits(ranking, indptr, items)
    relevant = np.diff(indptr)
    discount = 1.0 / np.log2(np.arange(2, ranking.shape[1] + 2))
    ideal = np.concatenate([np.zeros(1), np.cumsum(discount)])
    out = {}
    for k in ks:
        top = hit[:, :k]
        count = top.sum(axis=1)
        first = np.where(count > 0, top.argmax(axis=1) + 1, 1)
        out[f"recall@{k}"] = count / np.maximum(relevant, 1)
        out[f"ndcg@{k}"] = (top * discount[:k]).sum(axis=1) / np.maximum(
            ideal[np.minimum(relevant, k)], discount[k - 1]
        )
        out[f"precision@{k}"] = count / k
        out[f"hit@{k}"] = (count > 0).astype(np.float64)
        out[f"mrr@{k}"] = (count > 0) / first
    return out


def ranking_metrics(
    ranking: NDArray[np.int32], indptr: NDArray[np.int64], items: NDArray[np.int32], ks: Sequence[int] = (20,)
) -> Metrics:
    """Average `per_user` over the users that have test items; all averages are 0 when nobody has any."""
    values = per_user(ranking, indptr, items, ks)
    tested = np.diff(indptr) > 0
    users = int(tested.sum())
    averages = {name: float(value[tested].mean()) if users else 0.0 for name, value in values.items()}
    return Metrics(averages, users, len(tested) - users)
