"""A random mask of the budgeted size, fixed from the start: the control of every method that chooses its mask."""

from __future__ import annotations

from recsparse.budget import plan_sparse
from recsparse.policies.base import Policy, Stage
from recsparse.policies.rotation import open_columns
from recsparse.table import PackedTable


class RandomMask(Policy):
    """One stage on a mask drawn uniformly at random, a pure function of the seed; packed from the first step on."""

    name = "random_mask"

    def stage(self, number: int, previous: PackedTable | None) -> Stage | None:
        if number > 0:
            return None
        config = self.context.config
        plan = plan_sparse(config.policy, self.context.model.rows, config.model.dim, config.model.dtype)
        table = self.context.table(plan, "bernoulli")
        complete(table, config.train.seed, config.model.init_std)
        return Stage("train", table, self.context.optimizer(table), config.train.epochs, config.train.patience)


def complete(table: PackedTable, seed: int, std: float) -> None:
    """Fill the few slots of the capacity that a `bernoulli` start leaves open, so that the number kept is exact.

    That start keeps the slots below a threshold of their 32-bit ranks; where several slots have the rank of the
    threshold, none of them is kept.
    """
    missing = table.capacity - table.nnz
    if missing:
        open_columns(table, seed % table.dim, missing, seed=seed, limit=missing)
        table.reset_values_(seed, std)
