"""A generated data set too large to materialise: triples are drawn by counter, a sample of users is ranked for."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsparse import _host
from recsparse.data.dataset import Interactions, Protocol, Target
from recsparse.data.synthetic import SyntheticStream
from recsparse.errors import UserError

HELD_OUT = 4
"""Interactions of a user that are held out for validation, and as many for test: those that would follow the train
interactions in the stream."""


@dataclass(frozen=True)
class StreamedDataset:
    """A `SyntheticStream` with held-out interactions, as far as training and evaluation need a data set.

    Attributes:
        stream: where train triples are drawn from; all its interactions are train interactions.
        eval_users: users that an evaluation ranks for, an even sample of all; at most `stream.n_users`.
        protocol: as of `Dataset`.
    """

    stream: SyntheticStream
    eval_users: int = 10_000
    protocol: Protocol = "valid"

    @property
    def name(self) -> str:
        return self.stream.name

    @property
    def n_users(self) -> int:
        return self.stream.n_users

    @property
    def n_items(self) -> int:
        return self.stream.n_items

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of the recipe."""
        recipe = astuple(replace(self.stream, name="")), HELD_OUT, self.sampled.size
        return hashlib.sha256(f"recsparse-stream-1 {recipe}".encode()).hexdigest()

    @cached_property
    def sampled(self) -> NDArray[np.int64]:
        """The users that are ranked for, int64, ascending: what a user likes does not depend on the id."""
        count = min(self.eval_users, self.n_users)
        return np.arange(count, dtype=np.int64) * self.n_users // count

    def target(self, split: str) -> Target:
        """Whom to rank for, and what they should find; see `Dataset.target`."""
        if split not in ("valid", "test"):
            raise UserError(f"unknown split {split!r}; expected 'valid' or 'test'")
        wanted = self._rows(self.sampled, 0 if split == "valid" else HELD_OUT, HELD_OUT)
        seen = self.seen(self.sampled, split)
        wanted = wanted.without(seen)
        users = np.flatnonzero(wanted.degrees())
        return Target(self.sampled[users], wanted.rows(users), seen.rows(users))

    def seen(self, users: NDArray[np.int64], split: str) -> Interactions:
        """Items that a ranking of `users` leaves out, a row for each; see `Dataset.seen`."""
        own = self._rows(users, 0, 0)
        if split == "test" and self.protocol == "valid":
            return own.union(self._rows(users, 0, HELD_OUT))
        return own

    def _rows(self, users: NDArray[np.int64], skip: int, count: int) -> Interactions:
        stream = self.stream
        sizes = stream.n_users, stream.n_items, stream.min_degree, stream.max_degree, stream.seed
        return Interactions(*_host.streamed_rows(*sizes, users, skip, count))

    def stats(self) -> dict[str, int | float | str]:
        """Counts for a report."""
        return {
            "name": self.name,
            "protocol": self.protocol,
            "hash": self.hash,
            "users": self.n_users,
            "items": self.n_items,
            "expected_interactions": self.stream.expected_interactions,
            "evaluated_users": self.sampled.size,
        }
