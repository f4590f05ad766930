"""Generated interactions: planted low-rank taste and power-law popularity, as pure functions of counters.

Items form clusters of about a hundred; a user likes three clusters and sometimes follows general popularity, so that a
model that learns taste beats the popularity ranking. `csrc/core/synthetic.h` is the recipe: integers only, the same
bits on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from recsparse import _host
from recsparse.data.dataset import Dataset, Interactions, Protocol
from recsparse.errors import UserError

# Mean of the power law over degrees, as a share of max_degree - min_degree + 1: 1 / (6 ln 2) - 1 / 63.
_MEAN_DEGREE_SHARE = 0.2246


@dataclass(frozen=True)
class SyntheticStream:
    """A generated data set of any size that is drawn from by counter and never materialised.

    Attributes:
        n_users: number of users.
        n_items: number of items, below 2^31.
        seed: in [0, 2^63).
        min_degree, max_degree: interactions of a user, power-law between the two; at most 1024 and below n_items.
        name: for reports.
    """

    n_users: int
    n_items: int
    seed: int = 0
    min_degree: int = 5
    max_degree: int = 72
    name: str = "synthetic"

    def __post_init__(self) -> None:
        if not (self.n_users >= 1 and 2 <= self.n_items < 2**31):
            raise UserError(
                f"{self.name}: {self.n_users} users and {self.n_items} items; expected 1+ and 2 .. 2^31 - 1"
            )
        if not 1 <= self.min_degree <= self.max_degree <= min(1024, self.n_items - 1):
            raise UserError(
                f"{self.name}: degrees {self.min_degree} .. {self.max_degree}; "
                f"expected 1 <= min <= max <= {min(1024, self.n_items - 1)}"
            )

    @property
    def expected_interactions(self) -> int:
        """Expected number of interactions, repeats included."""
        spread = self.max_degree - self.min_degree + 1
        return round(self.n_users * (self.min_degree + max(0.0, _MEAN_DEGREE_SHARE * spread - 0.5)))

    def materialise(
        self, pairs: int, *, test_fraction: float, valid_fraction: float, protocol: Protocol = "valid"
    ) -> Dataset:
        """The stream as a data set of exactly `pairs` unique pairs in which every item occurs.

        Args:
            pairs: train, validation and test together.
            test_fraction: expected share of each user's items that goes to test.
            valid_fraction: expected share of the rest that goes to validation under protocol `valid`.

        Raises:
            UserError: `pairs` is below what the stream alone makes, or more than it can make.
        """
        try:
            indptr, items = _host.materialise_synthetic(
                self.n_users, self.n_items, self.min_degree, self.max_degree, self.seed, pairs
            )
        except _host.DataError as error:
            raise UserError(f"{self.name}: {error}") from None
        split = _host.hold_out(indptr, items, test_fraction, self.seed)
        train, test = Interactions(*split[:2]), Interactions(*split[2:])
        valid = Interactions.empty(self.n_users)
        if protocol == "valid":
            # Another seed than for test: the same keys would order the two choices alike.
            split = _host.hold_out(train.indptr, train.items, valid_fraction, self.seed + 1)
            train, valid = Interactions(*split[:2]), Interactions(*split[2:])
        return Dataset(self.name, self.n_users, self.n_items, train, valid, test, protocol)
