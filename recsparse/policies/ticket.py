"""Training of a ticket: the mask and the start weights that a round of another run left."""

from __future__ import annotations

from pathlib import Path

from recsparse import checkpoint
from recsparse.config import Config
from recsparse.errors import UserError
from recsparse.policies.base import Policy, Stage
from recsparse.table import PackedTable


class Ticket(Policy):
    """One stage from the table in `policy.ticket`, a checkpoint that `lth` names `ticket-NN`."""

    name = "ticket"
    sized = False

    @classmethod
    def resolve(cls, config: Config) -> Config:
        if not config.policy.ticket:
            raise UserError("policy.ticket is empty; give a ticket: --ticket runs/NAME/checkpoint/ticket-15")
        return config

    def stage(self, number: int, previous: PackedTable | None) -> Stage | None:
        if number > 0:
            return None
        config, rows = self.context.config, self.context.model.rows
        folder = Path(config.policy.ticket)
        table = checkpoint.load_table(folder, config.train.device)
        if (table.rows, table.dim) != (rows, config.model.dim):
            raise UserError(
                f"policy.ticket {folder} is {table.rows} x {table.dim}, but there are {rows} users and items and "
                f"model.dim is {config.model.dim}; give the data and the dim that it was drawn for"
            )
        return Stage("train", table, self.context.optimizer(table), config.train.epochs, config.train.patience)
