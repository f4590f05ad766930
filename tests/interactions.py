"""Random interactions for tests of graphs and rankings."""

from __future__ import annotations

import numpy as np

from recsparse.data import Interactions


def random_interactions(users: int, items: int, density: float, seed: int = 0) -> Interactions:
    """Each pair with probability about `density`, some items much more popular than others."""
    generator = np.random.default_rng(seed)
    popularity = np.clip(density * 2 * generator.random(items) ** 2 * 1.5, 0, 1)
    pairs = generator.random((users, items)) < popularity
    indptr = np.concatenate([[0], pairs.sum(1).cumsum()]).astype(np.int64)
    return Interactions(indptr, pairs.nonzero()[1].astype(np.int32))
