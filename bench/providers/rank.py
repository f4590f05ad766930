"""Full-catalogue ranking with torch, faiss and implicit. All of them rank dense float32 rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import memory
from ..ops.rank import K, RankProblem
from ..registry import ANYWHERE, Traffic, Trial, needs, provider

BLOCK = 1024
"""Users whose scores are held at a time by torch: 156 MB for 38,048 items. Smaller and larger blocks are slower."""


def _trial(problem: RankProblem, run: object, held: int, note: str) -> Trial:
    assert callable(run)
    return Trial(run, run, Traffic(), held, problem.case.batch, note=note)


@provider("rank", "torch.mm+topk", devices=ANYWHERE)
def product(problem: RankProblem) -> Trial:
    users, columns = problem.users, problem.items.T
    k = min(K, len(problem.items))

    def run(number: int) -> Tensor:
        parts = [torch.topk(users[at : at + BLOCK] @ columns, k).indices for at in range(0, len(users), BLOCK)]
        return torch.cat(parts)

    return _trial(problem, run, memory.nbytes(problem.joint), f"blocks of {BLOCK} users")


@provider("rank", "faiss.IndexFlatIP", needs("faiss"))
def flat_index(problem: RankProblem) -> Trial:
    import faiss

    index = faiss.IndexFlatIP(problem.case.dim)
    index.add(problem.items.numpy())
    users, threads = problem.users.numpy(), torch.get_num_threads()

    def run(number: int) -> np.ndarray:
        faiss.omp_set_num_threads(threads)
        found: np.ndarray = index.search(users, K)[1]
        return found

    return _trial(problem, run, memory.nbytes(problem.joint), "index built before")


@provider("rank", "implicit.topk", needs("implicit"))
def implicit_topk(problem: RankProblem) -> Trial:
    from implicit.cpu.topk import topk

    users, items, threads = problem.users.numpy(), problem.items.numpy(), torch.get_num_threads()

    def run(number: int) -> np.ndarray:
        found: np.ndarray = topk(items, users, K, num_threads=threads)[0]
        return found

    return _trial(problem, run, memory.nbytes(problem.joint), "")
