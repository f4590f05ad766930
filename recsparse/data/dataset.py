"""The data set that everything trains and evaluates on: three CSR matrices over the same users and items."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsparse import _host
from recsparse.errors import UserError

Protocol = Literal["valid", "paper"]

# Ids far above the number of interactions are raw ids that nobody renumbered: a table with a row for each would be
# almost all waste. Small files may have any ids below SPARE_IDS.
SPARE_IDS = 1_000_000
IDS_PER_INTERACTION = 100


@dataclass(frozen=True)
class Interactions:
    """A binary user x item matrix in CSR form.

    Attributes:
        indptr: int64 [n_users + 1]; the items of user u are `items[indptr[u]:indptr[u + 1]]`.
        items: int32 [nnz], ascending and unique in each row.
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]

    @staticmethod
    def empty(n_users: int) -> Interactions:
        """No interaction at all, over `n_users` users."""
        return Interactions(np.zeros(n_users + 1, np.int64), np.zeros(0, np.int32))

    @property
    def n_users(self) -> int:
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        return len(self.items)

    def row(self, user: int) -> NDArray[np.int32]:
        """Items of one user, ascending (a view)."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def degrees(self) -> NDArray[np.int64]:
        """Number of items of each user, int64 [n_users]."""
        return np.diff(self.indptr)

    def popularity(self, n_items: int) -> NDArray[np.int64]:
        """Number of users of each item, int64 [n_items]."""
        return np.bincount(self.items, minlength=n_items)

    def rows(self, users: NDArray[np.int64]) -> Interactions:
        """The sub-matrix of `users`, in that order (a copy)."""
        starts, counts = self.indptr[users], self.indptr[users + 1] - self.indptr[users]
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        take = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], counts)
        return Interactions(indptr, self.items[take])

    def without(self, other: Interactions) -> Interactions:
        """Pairs that are not in `other`, which has the same users."""
        mine, theirs = (np.repeat(np.arange(m.n_users), m.degrees()) << 32 | m.items for m in (self, other))
        kept = ~np.isin(mine, theirs, assume_unique=True)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])[self.indptr]
        return Interactions(indptr, self.items[kept])

    def union(self, other: Interactions) -> Interactions:
        """Pairs that are in either matrix."""
        owners = [np.repeat(np.arange(m.n_users, dtype=np.int32), m.degrees()) for m in (self, other)]
        users = np.concatenate(owners)
        items = np.concatenate([self.items, other.items])
        ends = np.arange(1, len(items) + 1, dtype=np.int64)
        indptr, merged, _ = _host.build_csr(users, ends, items, self.n_users)
        return Interactions(indptr, merged)


class Target(NamedTuple):
    """Whom an evaluation ranks for: `users` (int64, ascending), and a row for each of the items that they should find
    (`wanted`, at least one) and of those that are not ranked (`seen`)."""

    users: NDArray[np.int64]
    wanted: Interactions
    seen: Interactions


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test interactions over one numbering of users and items.

    Attributes:
        name: for reports; not part of the hash.
        n_users, n_items: sizes of the id ranges; ids without any interaction are allowed.
        train, valid, test: `Interactions` over the same users; `valid` is empty under protocol `paper`.
        protocol: `valid` (select on `valid`, touch `test` once) or `paper` (select on test, as the papers' code did).
        notes: remarks of the reader for `stats()`, such as the number of repeated pairs that were dropped.

    Raises:
        UserError: the matrices do not fit together or are not CSR with ascending unique items.
    """

    name: str
    n_users: int
    n_items: int
    train: Interactions
    valid: Interactions
    test: Interactions
    protocol: Protocol = "valid"
    notes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, matrix in self.parts().items():
            if matrix.n_users != self.n_users:
                raise UserError(f"{self.name}: {part} has {matrix.n_users} users, expected {self.n_users}")
            try:
                _host.check_csr(matrix.indptr, matrix.items, self.n_items)
            except (_host.DataError, TypeError) as error:
                raise UserError(f"{self.name}: {part}: {str(error).splitlines()[0]}") from None

    def parts(self) -> dict[str, Interactions]:
        """The three matrices by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of the sizes and of all three matrices, little-endian; equal content has an equal hash."""
        digest = hashlib.sha256(f"recsparse-dataset-1 {self.n_users} {self.n_items}".encode())
        for part, matrix in self.parts().items():
            digest.update(f" {part} {matrix.nnz} ".encode())
            digest.update(np.ascontiguousarray(matrix.indptr, "<i8").tobytes())
            digest.update(np.ascontiguousarray(matrix.items, "<i4").tobytes())
        return digest.hexdigest()

    def target(self, split: str) -> Target:
        """Whom to rank for: the users that have items in `split`, `valid` or `test`.

        Raises:
            UserError: no such split, or nobody has items in it.
        """
        if split not in ("valid", "test"):
            raise UserError(f"unknown split {split!r}; expected 'valid' or 'test'")
        matrix = self.parts()[split]
        if not matrix.nnz:
            more = "; raise data.valid_fraction, or add a valid.txt" if split == "valid" else ""
            raise UserError(f"{self.name}: {split} has no interactions to evaluate on{more}")
        users = np.flatnonzero(matrix.degrees())
        return Target(users, matrix.rows(users), self.seen(users, split))

    def seen(self, users: NDArray[np.int64], split: str) -> Interactions:
        """Items that a ranking of `users` for `split` leaves out, a row for each: those of train, and for `test` those
        of validation too."""
        own = self.train.rows(users)
        return own.union(self.valid.rows(users)) if split == "test" and self.valid.nnz else own

    @cached_property
    def popularity(self) -> NDArray[np.int64]:
        """Number of train users of each item, int64 [n_items]."""
        return self.train.popularity(self.n_items)

    def stats(self) -> dict[str, int | float | str]:
        """Counts for a report: sizes, interactions, density, what is unseen in train, and the reader's notes."""
        degrees = self.train.degrees()
        tested = self.test.degrees() > 0
        return {
            "name": self.name,
            "protocol": self.protocol,
            "hash": self.hash,
            "users": self.n_users,
            "items": self.n_items,
            **{part: matrix.nnz for part, matrix in self.parts().items()},
            "density": self.train.nnz / max(1, self.n_users * self.n_items),
            "train_users": int((degrees > 0).sum()),
            "train_items": int((self.popularity > 0).sum()),
            "test_users": int(tested.sum()),
            "test_users_unseen_in_train": int((tested & (degrees == 0)).sum()),
            "test_items_unseen_in_train": int((self.popularity[np.unique(self.test.items)] == 0).sum()),
            "test_pairs_in_train": _host.count_common(
                self.train.indptr, self.train.items, self.test.indptr, self.test.items
            ),
            **self.notes,
        }


def load_folder(
    path: str | Path,
    *,
    protocol: Protocol = "valid",
    valid_fraction: float = 0.1,
    seed: int = 0,
    name: str | None = None,
) -> Dataset:
    """Read `train.txt`, `test.txt` and, if present, `valid.txt` in the LightGCN / NGCF format.

    Each line is `user item item ...` with ids from 0. Users without items, test users and items unseen in train,
    repeated users and repeated items (dropped and counted in `stats()`) are fine.

    Args:
        protocol: `valid`: validation pairs come from `valid.txt`, or else `valid_fraction` of each user's train items
            is held out; a user always keeps one train item. `paper`: train on all train pairs, `valid.txt` is ignored.
        valid_fraction: expected share of a user's train items that is held out, in [0, 1).
        seed: of the hold-out; which pairs are held out is a pure function of (seed, user, item).
        name: defaults to the folder's name.

    Raises:
        UserError: a missing or empty file, a malformed line (with its number), a negative or huge id.
    """
    folder = Path(path)
    if protocol not in ("valid", "paper"):
        raise UserError(f"unknown protocol {protocol!r}; expected 'valid' or 'paper'")
    if not 0 <= valid_fraction < 1:
        raise UserError(f"valid_fraction is {valid_fraction}; expected a number in [0, 1)")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with train.txt and test.txt")
    files = {"train": folder / "train.txt", "test": folder / "test.txt"}
    for file in files.values():
        if not file.is_file():
            raise UserError(f"{file}: no such file; expected lines of `user item item ...`")
    if protocol == "valid" and (folder / "valid.txt").is_file():
        files["valid"] = folder / "valid.txt"

    n_users, n_items, matrices, duplicates = _read(files)
    notes = {"duplicates_dropped": duplicates}
    train = matrices["train"]
    valid = matrices.get("valid", Interactions.empty(n_users))
    if protocol == "valid" and "valid" not in files:
        split = _host.hold_out(train.indptr, train.items, valid_fraction, seed)
        train, valid = Interactions(*split[:2]), Interactions(*split[2:])
    return Dataset(name or folder.resolve().name, n_users, n_items, train, valid, matrices["test"], protocol, notes)


def _read(files: dict[str, Path]) -> tuple[int, int, dict[str, Interactions], int]:
    """Parse the files over one numbering -> (n_users, n_items, matrices, repeated pairs dropped)."""
    parsed = {}
    for part, file in files.items():
        try:
            parsed[part] = _host.parse_text(str(file))
        except _host.DataError as error:
            raise UserError(str(error)) from None
    total = sum(len(items) for _, _, items, _, _ in parsed.values())
    for what, place in (("user", 3), ("item", 4)):
        part = max(parsed, key=lambda p: parsed[p][place])
        largest = parsed[part][place]
        limit = SPARE_IDS + IDS_PER_INTERACTION * total
        if largest >= limit:
            raise UserError(
                f"{files[part]}: huge {what} id {largest} for {total} interactions, expected less than {limit}; "
                "renumber the ids from 0"
            )
    n_users = 1 + max(p[3] for p in parsed.values())
    n_items = 1 + max(p[4] for p in parsed.values())
    matrices, dropped = {}, 0
    for part in list(parsed):
        line_users, line_ends, items, _, _ = parsed.pop(part)  # popped: text and CSR of one file at a time
        indptr, unique, duplicates = _host.build_csr(line_users, line_ends, items, n_users)
        matrices[part] = Interactions(indptr, unique)
        dropped += duplicates
    return n_users, n_items, matrices, dropped
