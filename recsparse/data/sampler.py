"""Draws of training triples from a data set or from a generated stream."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from recsparse.data.dataset import Dataset
from recsparse.data.streamed import StreamedDataset
from recsparse.data.synthetic import SyntheticStream
from recsparse.errors import UserError
from recsparse.ops.sample import MODES, sample, sample_synthetic

# The seed of a stream says what the users like. That of its draws is a place among them: far apart, and so that the
# numbers below 2^62 stay below it and the others below 2^63.
_SEEDS = 1 << 19
_DRAWS_OF_A_SEED = 1 << 42


class Sampler:
    """Stateless sampler: draw number n is a pure function of (seed, n), so any cut of an epoch gives the same triples.

    Args:
        dataset: a `Dataset` (its train part), a `StreamedDataset` or a `SyntheticStream`.
        seed: in [0, 2^63).
        mode: `users` (a uniform user with replacement, then a uniform positive of that user) or `interactions` (every
            train pair once an epoch, shuffled anew each epoch; needs a `Dataset`).
        backend: as for `recsparse.ops.sample`.
        device: where the interactions are kept, and triples are drawn.

    Users without a positive or without a negative are never drawn, nor are their interactions.

    Attributes:
        epoch_draws: draws that make one epoch: the number of train pairs that can be drawn; for a stream, the expected
            number of its interactions.

    Raises:
        UserError: unknown mode, or no user has both a positive and a negative.
    """

    def __init__(
        self,
        dataset: Dataset | StreamedDataset | SyntheticStream,
        *,
        seed: int,
        mode: Literal["users", "interactions"] = "users",
        backend: str = "auto",
        device: str | torch.device = "cpu",
    ) -> None:
        if mode not in MODES:
            raise UserError(f"unknown sampling mode {mode!r}; expected one of {', '.join(MODES)}")
        self.seed, self.mode, self.backend, self.device = seed, mode, backend, device
        self.n_items = dataset.n_items
        self._stream: SyntheticStream | None = None
        if not isinstance(dataset, Dataset):
            self._stream = dataset if isinstance(dataset, SyntheticStream) else dataset.stream
            if mode != "users":
                raise UserError("a generated stream is not materialised: only sampling mode 'users' works on it")
            self.epoch_draws = self._stream.expected_interactions
            return
        degrees = dataset.train.degrees()
        users = np.flatnonzero((degrees > 0) & (degrees < dataset.n_items))
        if not len(users):
            raise UserError(f"{dataset.name}: no user has both a positive and a negative train item")
        matrix = dataset.train
        if len(users) < dataset.n_users:
            matrix = matrix.rows(users)
        self._indptr, self._items = (torch.from_numpy(part).to(device) for part in (matrix.indptr, matrix.items))
        self._users = torch.from_numpy(users).to(device)
        self.epoch_draws = matrix.nnz

    def draw(self, start: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Triples number `start .. start + count` -> (users, pos, neg), int64 [count] each."""
        common = {"seed": self.seed, "start": start, "count": count}
        if self._stream is not None:
            s = self._stream
            common = {"seed": s.seed, "start": start + self.seed % _SEEDS * _DRAWS_OF_A_SEED, "count": count}
            degrees = {"min_degree": s.min_degree, "max_degree": s.max_degree}
            return sample_synthetic(s.n_users, s.n_items, **degrees, **common, backend=self.backend, device=self.device)
        return sample(
            self._indptr, self._items, self._users, self.n_items, **common, mode=self.mode, backend=self.backend
        )
