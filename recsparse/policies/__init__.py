"""Policies: which weights live, and when that changes. `REGISTRY` maps the name in a config to the class."""

from __future__ import annotations

from recsparse.config import Config
from recsparse.errors import UserError
from recsparse.policies.base import Context, Policy, Stage
from recsparse.policies.bet import Bet, BetRandom
from recsparse.policies.dense import Dense, SmallDense
from recsparse.policies.dsl import Dsl
from recsparse.policies.lth import Lth
from recsparse.policies.pep import Pep
from recsparse.policies.quantised import DenseFp16, DenseInt8
from recsparse.policies.random_mask import RandomMask
from recsparse.policies.ticket import Ticket

REGISTRY: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        *(Dense, SmallDense, Dsl, Lth, Pep, Bet, BetRandom),
        *(RandomMask, DenseFp16, DenseInt8, Ticket),
    )
}


def find(name: str) -> type[Policy]:
    """Class of the policy `name`.

    Raises:
        UserError: no such policy.
    """
    if name not in REGISTRY:
        raise UserError(f"policy.name is {name!r}; it must be one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


def resolve(config: Config) -> Config:
    """`config` with every option that the policy leaves open filled in.

    Raises:
        UserError: unknown policy, or a size for one that takes none.
    """
    policy = find(config.policy.name)
    for key in ("budget", "density"):
        value = getattr(config.policy, key)
        if value is not None and not policy.sized:
            raise UserError(
                f"policy.{key} is {value}, but policy {policy.name} takes no size; leave it out or change policy"
            )
    return policy.resolve(config)


__all__ = [
    "REGISTRY",
    "Bet",
    "BetRandom",
    "Context",
    "Dense",
    "DenseFp16",
    "DenseInt8",
    "Dsl",
    "Lth",
    "Pep",
    "Policy",
    "RandomMask",
    "SmallDense",
    "Stage",
    "Ticket",
    "find",
    "resolve",
]
