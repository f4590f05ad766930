"""Column rotation: prune-and-rewind rounds that never leave the budget (mode `rotate` of the policy `dsl`).

Iterative magnitude pruning with rewinding finds better masks than growth by gradient, but it starts dense. Here the
budget is full from the first step on: the table starts with the first columns of every row; each round trains it for a
few epochs, drops the smallest weights, opens the same number of slots in columns that no round has tried yet, and sets
every weight back to its initial value, which is a pure function of (seed, row, column) and costs no memory. Over the
rounds all columns compete for the same slots. New columns open for all rows together, because a weight is of use only
where the partner row keeps the same column: growth by gradient cannot start a column that nobody has.
"""

from __future__ import annotations

import torch

from recsparse import ops
from recsparse.table import PackedTable


def open_columns(table: PackedTable, first: int, slots: int, *, seed: int, limit: int) -> int:
    """Grow `slots` weights of value 0 in whole columns `first`, `first` + 1, .. (cyclic), in rows that lack them.

    A column that cannot be opened for every row gets rows drawn at random. At most `limit` candidates are held at once.

    Returns:
        How many were grown: `slots`, or fewer when every column is full.
    """
    generator = torch.Generator().manual_seed(seed)  # of the CPU, whatever the table is on: the same draws
    left = slots
    for step in range(table.dim):
        column = (first + step) % table.dim
        rows = (~table.column_mask(column)).nonzero()[:, 0]
        if len(rows) > left:
            rows = rows[torch.randperm(len(rows), generator=generator)[:left].sort().values.to(rows.device)]
        for part in rows.split(limit):
            keys = part * table.dim + column
            scores = torch.ones(len(keys), device=keys.device)
            ops.prune_regrow_(table, None, keys, scores, drop=0, grow=len(keys))
        left -= len(rows)
        if left == 0:
            break
    return slots - left


def rotate(table: PackedTable, round_number: int, *, share: float, seed: int, std: float, limit: int) -> None:
    """Between round `round_number` - 1 and the next: drop, open columns, rewind. In place; nnz does not change.

    Args:
        table: what the round before has trained.
        round_number: from 1.
        share: part of the kept weights that is replaced.
        seed: of the initial weights.
        std: of the initial weights.
        limit: candidates held at once.
    """
    kept = table.nnz
    slots = int(share * kept)
    start_columns = -(-kept // table.rows)
    first = (start_columns + (round_number - 1) * -(-slots // table.rows)) % table.dim
    nobody = table.values.new_empty(0, dtype=torch.int64)
    ops.prune_regrow_(table, None, nobody, nobody.float(), drop=slots, grow=0)
    open_columns(table, first, slots, seed=seed + round_number, limit=limit)
    table.reset_values_(seed, std)
