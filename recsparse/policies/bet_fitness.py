"""The fitness predictor of BET: how much of the full table's quality sizes will keep, learned while searching.

DeepSets (Zaheer et al., NeurIPS 2017) over the sets S_d of rows that have size d, for d = 1..d_max:

    q_n = encoder(frequency of n / largest frequency)         one encoder for users, one for items, 1 -> 16 -> 16
    s_d = mu([mean of q_n over S_d; d / d_max])               17 -> 64 -> 64; the mean of an empty set is 0
    h   = mean of s_d over all d_max sizes
    fitness = pi(h)                                           64 -> 64 -> 1

with LeakyReLU after every layer, the last ones included, trained one action at a time on the squared error. The paper
leaves initial weights and the optimiser open: Xavier-uniform in mu and pi, Adam from 0.01, times 0.9 after every
update, not below 0.002, are those of its code. Where its code departs from the paper (item ids for frequencies, sets
divided twice by their size) it is not followed.

No mask is built, and no row is looked at: rows in the order of their frequency have sizes that do not increase, so each
S_d is a range of ranks, and its mean a difference of prefix sums; rows of equal frequency have equal q. All is float64:
a short range must not drown in the rounding of long sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsparse.policies.bet_sampler import Action

CODE, HIDDEN = 16, 64
RATE, RATE_DECAY, RATE_LEAST = 0.01, 0.9, 0.002


def ranges(action: Action, largest: int) -> NDArray[np.int64]:
    """Of users and items: how many rows have a size of at least d, for d = 1..largest + 1; int64 [2, largest + 1].

    Rows of size d are the ranks from entry d + 1 up to entry d: all that the predictor needs of an action.
    """
    tails = [np.bincount(sizes, minlength=largest + 2)[::-1].cumsum()[::-1][1:] for sizes in action]
    return np.stack(tails).astype(np.int64)


class FitnessPredictor(nn.Module):
    """Predicts and learns; see the module's description. Same bits for any number of threads.

    Args:
        frequencies: train interactions of users and of items by rank, not increasing.
        largest: d_max.
        seed: of the initial weights.
    """

    def __init__(self, frequencies: tuple[NDArray[np.int64], NDArray[np.int64]], largest: int, seed: int) -> None:
        super().__init__()
        self.largest = largest
        self.groups = [_Groups(each) for each in frequencies]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoders = nn.ModuleList(_mlp(1, CODE, CODE) for _ in self.groups)
            self.of_set = _mlp(CODE + 1, HIDDEN, HIDDEN)
            self.of_action = _mlp(HIDDEN, HIDDEN, 1)
            for part in (*self.of_set, *self.of_action):
                if isinstance(part, nn.Linear):
                    nn.init.xavier_uniform_(part.weight)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=RATE)

    def embed(self, actions: Sequence[NDArray[np.int64]]) -> Tensor:
        """h of each action, given as its `ranges`; float64 [len(actions), 64]."""
        tails = torch.from_numpy(np.stack(actions))
        counts = tails[:, :, :-1].sum(1) - tails[:, :, 1:].sum(1)
        sums = torch.zeros(len(actions), self.largest, CODE, dtype=torch.float64)
        for place, groups in enumerate(self.groups):
            before = groups.prefix_sums(self.encoders[place](groups.frequencies), tails[:, place])
            sums = sums + before[:, :-1] - before[:, 1:]
        means = sums / counts.clamp(min=1)[:, :, None]
        sizes = torch.arange(1, self.largest + 1, dtype=torch.float64) / self.largest
        inputs = torch.cat([means, sizes[None, :, None].expand(len(actions), -1, 1)], dim=2)
        embedded: Tensor = self.of_set(inputs).mean(1)
        return embedded

    def forward(self, actions: Sequence[NDArray[np.int64]]) -> Tensor:
        """Predicted fitness of each action, float64 [len(actions)]."""
        predicted: Tensor = self.of_action(self.embed(actions))[:, 0]
        return predicted

    def scores(self, actions: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """`forward`, without gradients."""
        with torch.no_grad(), _one_thread():
            return self(actions).numpy()

    def distances(self, actions: Sequence[NDArray[np.int64]], to: NDArray[np.int64]) -> NDArray[np.float64]:
        """Euclidean distances of the embeddings of `actions` to that of the action `to`, without gradients."""
        with torch.no_grad(), _one_thread():
            return (self.embed(actions) - self.embed([to])).square().sum(1).sqrt().numpy()

    def update(self, action: NDArray[np.int64], fitness: float) -> float:
        """One step towards the `fitness` that was measured for `action`; returns the squared error before it."""
        with _one_thread():
            error = (self([action]) - fitness).square().sum()
            self.optimizer.zero_grad()
            error.backward()
            self.optimizer.step()
        for group in self.optimizer.param_groups:
            group["lr"] = max(RATE_LEAST, group["lr"] * RATE_DECAY)
        return float(error.detach())


class _Groups:
    """Ranks of equal frequency.

    Attributes:
        frequencies: of each group, as a share of the largest one, float64 [groups, 1].
    """

    def __init__(self, by_rank: NDArray[np.int64]) -> None:
        starts = np.flatnonzero(np.diff(by_rank, prepend=by_rank[0] + 1))
        shares = by_rank[starts] / max(1, int(by_rank[0]))
        self.frequencies = torch.from_numpy(shares.astype(np.float64))[:, None]
        self.starts = torch.from_numpy(starts)
        self.lengths = torch.from_numpy(np.diff(starts, append=len(by_rank)))

    def prefix_sums(self, codes: Tensor, ranks: Tensor) -> Tensor:
        """Sums of the codes [groups, c] of the rows before each of `ranks` (int64, any shape); [*ranks.shape, c]."""
        whole = (codes * self.lengths[:, None]).cumsum(0) - codes * self.lengths[:, None]
        group = torch.searchsorted(self.starts, ranks.contiguous(), right=True) - 1
        return whole[group] + codes[group] * (ranks - self.starts[group])[..., None]


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    layers = [nn.Linear(inputs, hidden), nn.LeakyReLU(), nn.Linear(hidden, outputs), nn.LeakyReLU()]
    return nn.Sequential(*layers).double()


@contextmanager
def _one_thread() -> Iterator[None]:
    """The matrices are small, and more threads would add their sums in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
