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

from recsparse import _host
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


def per_user(
    ranking: NDArray[np.int32], indptr: NDArray[np.int64], items: NDArray[np.int32], ks: Sequence[int] = (20,)
) -> dict[str, NDArray[np.float64]]:
    """Every metric of every user, float64 [users] by `name@K`; 0 for users without test items.

    Args:
        ranking: int32 [users, width], best first, -1 where a row ends early.
        indptr, items: CSR of the same users' test items, ascending in each row.
        ks: cut-offs K.

    Raises:
        UserError: a K below 1 or above the width of `ranking`, or an `indptr` that does not fit it.
    """
    if ranking.ndim != 2 or len(indptr) != len(ranking) + 1:
        raise UserError(f"ranking has shape {ranking.shape}, expected [{len(indptr) - 1}, K] to match indptr")
    if any(k < 1 or k > ranking.shape[1] for k in ks):
        raise UserError(f"metrics at K = {list(ks)} need 1 <= K <= {ranking.shape[1]}, the width of the ranking")
    table = _host.ranking_metrics(ranking, indptr, items, np.array(ks, np.int64))
    return {f"{name}@{k}": table[:, c, m] for c, k in enumerate(ks) for m, name in enumerate(METRICS)}


def ranking_metrics(
    ranking: NDArray[np.int32], indptr: NDArray[np.int64], items: NDArray[np.int32], ks: Sequence[int] = (20,)
) -> Metrics:
    """Average `per_user` over the users that have test items; all averages are 0 when nobody has any."""
    values = per_user(ranking, indptr, items, ks)
    tested = np.diff(indptr) > 0
    users = int(tested.sum())
    averages = {name: float(value[tested].mean()) if users else 0.0 for name, value in values.items()}
    return Metrics(averages, users, len(tested) - users)
