"""Rejection samplers of training triples: vectorised numpy, and the loop over draws of common training code."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import numpy as np

from ..ops.sample import SampleProblem
from ..registry import Traffic, Trial, provider

Triples = tuple[np.ndarray, np.ndarray, np.ndarray]


def _vectorised(problem: SampleProblem, is_positive: Callable[[np.ndarray], np.ndarray], held: int, note: str) -> Trial:
    rng = np.random.default_rng(0)
    indptr, items = problem.indptr.numpy(), problem.items.numpy()
    degrees = np.diff(indptr)
    n_users, n_items, batch = problem.n_users, problem.n_items, problem.case.batch

    def run(number: int) -> Triples:
        users = rng.integers(n_users, size=batch)
        pos = items[indptr[users] + rng.integers(degrees[users])].astype(np.int64)
        neg = rng.integers(n_items, size=batch)
        bad = np.flatnonzero(is_positive(users * n_items + neg))
        while len(bad):
            neg[bad] = rng.integers(n_items, size=len(bad))
            bad = bad[is_positive(users[bad] * n_items + neg[bad])]
        return users, pos, neg

    held += indptr.nbytes + items.nbytes
    return Trial(run, run, Traffic(), held, batch, note=note)


@provider("sample", "numpy[search]")
def search(problem: SampleProblem) -> Trial:
    keys = problem.keys.numpy()

    def is_positive(wanted: np.ndarray) -> np.ndarray:
        place = np.searchsorted(keys, wanted)
        return keys[np.minimum(place, len(keys) - 1)] == wanted

    return _vectorised(problem, is_positive, keys.nbytes, "rejection by binary search in the sorted pairs")


@provider("sample", "numpy[bitmap]")
def bitmap(problem: SampleProblem) -> Trial:
    bits = problem.bitmap

    def is_positive(wanted: np.ndarray) -> np.ndarray:
        return (bits[wanted >> 3] >> (wanted & 7).astype(np.uint8)) & 1 != 0

    return _vectorised(problem, is_positive, bits.nbytes, "rejection by a bit for every pair: users x items / 8 bytes")


@provider("sample", "python loop")
def loop(problem: SampleProblem) -> Trial:
    indptr = problem.indptr.tolist()
    items = problem.items.tolist()
    lists = [items[start:stop] for start, stop in itertools.pairwise(indptr)]
    known = [set(own) for own in lists]
    rng = random.Random(0)

    def run(number: int) -> Triples:
        triples = np.empty((3, problem.case.batch), dtype=np.int64)
        for place in range(problem.case.batch):
            user = rng.randrange(problem.n_users)
            neg = rng.randrange(problem.n_items)
            while neg in known[user]:
                neg = rng.randrange(problem.n_items)
            triples[:, place] = user, rng.choice(lists[user]), neg
        return triples[0], triples[1], triples[2]

    # A set or list entry is about 60 bytes: hash slot, pointer and boxed number.
    return Trial(run, run, Traffic(), 60 * len(items), problem.case.batch, note="one draw at a time, sets of positives")
