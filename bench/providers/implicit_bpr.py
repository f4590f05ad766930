"""BPR with the library implicit: stochastic gradient descent on dense rows, its threads racing (Hogwild).

Not the same algorithm as ours: no mini-batch, no moments, a bias an item, and negatives that it draws itself from the
items of all pairs. It is what many people train BPR with. No formula predicts a racing result, so the check is that the
loss of the triples falls. What is timed is its native epoch, without the set-up of `fit`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from .. import inputs
from ..ops.bpr_step import CHUNK, L2, BprProblem, LossFall
from ..registry import Trial, needs, provider

RATE = 0.05
CHECK_EPOCHS = 10


@provider("bpr_step", "implicit.bpr", needs("implicit"))
def hogwild(problem: BprProblem) -> Trial:
    from implicit.cpu.bpr import RNGVector, bpr_update
    from scipy.sparse import csr_matrix

    case, threads = problem.case, torch.get_num_threads()
    n_users, n_items = problem.n_users, case.rows - problem.n_users

    def pairs(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Users, items and row starts of the distinct pairs in a call's mini-batches."""
        users, pos, _ = (part.numpy() for part in problem.batches(number, CHUNK))
        matrix = csr_matrix((np.ones(len(users), np.float32), (users, pos)), shape=(n_users, n_items))
        matrix.sum_duplicates()
        owners = np.repeat(np.arange(n_users, dtype=matrix.indices.dtype), np.diff(matrix.indptr))
        return owners, matrix.indices, matrix.indptr

    calls = [pairs(number) for number in range(min(4, problem.n_sets // CHUNK))]
    rng = np.random.default_rng(0)
    users, items = ((rng.random((rows, case.dim + 1), np.float32) - 0.5) / 8 for rows in (n_users, n_items))
    users[:, case.dim] = 1  # the weight of an item's bias

    def run(number: int) -> None:
        owners, liked, starts = calls[number % len(calls)]
        draws = RNGVector(threads, len(owners) - 1, rng.integers(2**31, size=threads))
        bpr_update(draws, owners, liked, starts, users, items, RATE, L2, threads, True)

    def loss() -> float:
        user, pos, neg = problem.batches(0, CHUNK)
        left, right = torch.from_numpy(users), torch.from_numpy(items)
        return float(functional.softplus((left[user] * (right[neg] - right[pos])).sum(1)).mean())

    def answer(steps: int) -> LossFall:
        before = loss()
        for _ in range(CHECK_EPOCHS):
            run(0)
        return LossFall(before, loss())

    count = sum(len(owners) for owners, _, _ in calls) // len(calls)
    traffic = inputs.dense_gather(3 * count, case, passes=2)
    held = users.nbytes + items.nbytes
    note = f"not the same algorithm: Hogwild SGD, racing threads; {CHUNK} mini-batches a call"
    return Trial(run, answer, traffic, held, count, steps=CHUNK, note=note)
