"""Baselines that keep every weight of their table."""

from __future__ import annotations

from recsparse.budget import TablePlan, plan_dense, plan_small_dense
from recsparse.policies.base import Policy, Stage
from recsparse.table import PackedTable


class Dense(Policy):
    """The full table: the upper bound in bytes, and what budgets are a share of."""

    name = "dense"
    sized = False

    def plan(self) -> TablePlan:
        model = self.context.config.model
        return plan_dense(self.context.model.rows, model.dim, model.dtype)

    def stage(self, number: int, previous: PackedTable | None) -> Stage | None:
        if number > 0:
            return None
        config, table = self.context.config, self.context.table(self.plan(), "full")
        return Stage("train", table, self.context.optimizer(table), config.train.epochs, config.train.patience)


class SmallDense(Dense):
    """A narrower dense table of the same bytes: the baseline that any sparse method has to beat."""

    name = "small_dense"
    sized = True

    def plan(self) -> TablePlan:
        config = self.context.config
        return plan_small_dense(config.policy, self.context.model.rows, config.model.dim, config.model.dtype)
