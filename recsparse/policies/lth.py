"""Lottery tickets (LTH-MRS): train, drop the smallest weights, rewind the rest to where they started, and again.

Round 0 trains the full table. After each round the share `rate` of the weights that are left, those of smallest
magnitude, leaves, and the others go back to their start. After k rounds of scope `joint` exactly
round(rows dim (1 - rate)^k) weights are kept; masks are nested; moments start at zero in every round. From round 1 on
table, gradients and moments are packed at the density of the round, where published code multiplies dense ones by a
mask. Each round's mask and start weights are a *ticket*, which `recsparse train --ticket` trains alone.

The published code drops int(n rate) + 1 weights and all ties of the threshold; here the number is exact and of equal
magnitudes the later ones leave.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from recsparse import ops
from recsparse.budget import TablePlan, plan_dense, plan_sparse
from recsparse.config import LthConfig
from recsparse.errors import UserError
from recsparse.layout import cheapest_kind
from recsparse.models import Triples
from recsparse.policies.base import Context, Policy, Stage
from recsparse.spans import span
from recsparse.table import PackedTable

WARM_UP = "rewind"
"""Artefact: the weights that rounds go back to, where that is not the initial ones."""


class WarmUp(Stage):
    """Ends after a number of steps."""

    last: int
    ended: bool = False

    def prune_due(self, step: int) -> int | None:
        return self.last if step < self.last else None

    def prune(self, step: int, last_batch: Triples) -> None:
        self.ended = True

    def finished(self) -> bool:
        return self.ended


class Lth(Policy):
    """Iterative magnitude pruning with rewinding, and its controls; see the module's description."""

    name = "lth"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        config = context.config
        self.options: LthConfig = config.policy.lth
        self.warm_up = parse_rewind(self.options.rewind, context.steps_per_epoch)
        model, dim = context.model, config.model.dim
        parts = (model.n_users * dim, model.n_items * dim)
        plan = None
        if config.policy.budget is not None or config.policy.density is not None:
            plan = plan_sparse(config.policy, model.rows, dim, config.model.dtype)
        self.kept = schedule(self.options, parts, plan)

    def stage(self, number: int, previous: PackedTable | None) -> Stage | None:
        rounds = len(self.kept)
        if self.warm_up:
            if number == 0:
                return self._warm_up()
            number -= 1
        if number >= rounds:
            return None
        if number == 0:
            table = self._full() if previous is None else previous
        else:
            assert previous is not None
            table = self._pruned(previous, number)
        last = number == rounds - 1
        train = self.context.config.train
        artefact = "best" if last else f"round-{number % 2}"
        stage = Stage(f"round {number}", table, self.context.optimizer(table), train.epochs, train.patience, artefact)
        stage.ticket = f"ticket-{number:02d}"
        stage.reported = True
        if not last and self.options.prune_from == "last":
            stage.keep = "last"
        return stage

    def _warm_up(self) -> WarmUp:
        table, epochs = self._full(), -(-self.warm_up // self.context.steps_per_epoch)
        stage = WarmUp("warm-up", table, self.context.optimizer(table), epochs, 0, WARM_UP)
        stage.keep, stage.evaluated, stage.last = "last", False, self.warm_up
        return stage

    def _full(self) -> PackedTable:
        model = self.context.config.model
        return self.context.table(plan_dense(self.context.model.rows, model.dim, model.dtype), "full")

    def _pruned(self, previous: PackedTable, number: int) -> PackedTable:
        config = self.context.config
        with span("prune"):
            if self.options.criterion == "random":
                randomise(previous, config.train.seed + number)
            table = pruned(previous, self.context.model.n_users, self.kept[number])
            if self.options.rewind == "none":
                return table
            if self.options.rewind == "random":
                table.reset_values_(config.train.seed + number, config.model.init_std)
            elif self.warm_up:
                restore(table, self.context.load(WARM_UP))
            else:
                table.reset_values_(config.train.seed, config.model.init_std)
        return table


def parse_rewind(text: str, steps_per_epoch: int) -> int:
    """Steps of `3 epochs` or `500 steps`, 0 for `init`, `random` and `none`.

    Raises:
        UserError: none of them.
    """
    if text in ("init", "random", "none"):
        return 0
    match = re.fullmatch(r"\s*(\d+)\s*(epoch|step)s?\s*", text)
    if match is None or int(match.group(1)) < 1:
        raise UserError(
            f"policy.lth.rewind is {text!r}; expected init, `3 epochs`, `500 steps`, none (weights are kept) or random "
            "(new ones)"
        )
    return int(match.group(1)) * (steps_per_epoch if match.group(2) == "epoch" else 1)


def schedule(options: LthConfig, parts: tuple[int, int], plan: TablePlan | None) -> list[tuple[int, int]]:
    """Kept weights of users and of items in each round, from all of them on; with scope `joint` (sum, -1): together.

    Args:
        parts: slots of users and of items.
        plan: what a budget or a density allows, where one is given: rounds go on until it is met, the last one
            exactly. Else `options.rounds` says how many follow the full table.

    Raises:
        UserError: no end is given, or one that cannot be met.
    """
    if options.rounds is None and plan is None:
        raise UserError("policy lth needs an end: give policy.lth.rounds, policy.budget or policy.density")
    target = None if plan is None else split_target(options.scope, parts, plan.capacity)
    found = [_kept(options, parts, 0)]
    for number in range(1, 10_000):
        if options.one_shot and target is not None:
            return [found[0], target]
        kept = _kept(options, parts, number)
        if target is not None and _total(kept) <= _total(target):
            return [*found, target]
        if target is None and number > int(options.rounds or 0):
            break
        if min(kept if kept[1] >= 0 else kept[:1]) < 1:
            raise UserError(f"policy.lth.rounds {options.rounds} leaves no weight after round {number}; give fewer")
        found.append(kept)
    return [found[0], found[-1]] if options.one_shot else found


def _kept(options: LthConfig, parts: tuple[int, int], number: int) -> tuple[int, int]:
    share = (1 - options.rate) ** number
    users, items = parts
    if options.scope == "joint":
        return round(share * (users + items)), -1
    return (
        round(share * users) if options.scope in ("user", "both") else users,
        round(share * items) if options.scope in ("item", "both") else items,
    )


def _total(kept: tuple[int, int]) -> int:
    return kept[0] + max(kept[1], 0)


def split_target(scope: str, parts: tuple[int, int], capacity: int) -> tuple[int, int]:
    """A number of kept weights cut into those of users and of items, as `schedule` gives them."""
    users, items = parts
    if scope == "joint":
        return capacity, -1
    if scope == "both":
        own = round(capacity * users / (users + items))
        return own, capacity - own
    fixed, name = (items, "item") if scope == "user" else (users, "user")
    if capacity <= fixed:
        raise UserError(
            f"policy.lth.scope {scope} keeps all {fixed} {name} weights, and the size given allows {capacity} in all; "
            "give a larger one, or scope both or joint"
        )
    return (capacity - items, items) if scope == "user" else (users, capacity - users)


def drop_smallest(table: PackedTable, count: int) -> None:
    nobody = table.values.new_empty(0, dtype=torch.int64)
    ops.prune_regrow_(table, None, nobody, nobody.float(), drop=count, grow=0)


def pruned(table: PackedTable, n_users: int, kept: Sequence[int]) -> PackedTable:
    """A table of its own with the `kept` largest weights of `table` (of users and of items, or (all, -1) together), in
    the index kind that takes the fewest bytes. `table` is used up.

    Rows are stored one after the other, users first. To prune one part alone, the other one is made infinite for as
    long as it takes, and put back.
    """
    if table.kind not in ("bits", "cols8"):
        table.convert_("bits")
    users, items = kept
    if items < 0:
        drop_smallest(table, table.nnz - users)
    else:
        of_users = int(table.row_counts()[:n_users].sum())
        for begin, end, drop in (
            (of_users, table.nnz, of_users - users),
            (0, users, table.nnz - of_users - items),
        ):
            if drop:
                other = table.values[begin:end].clone()
                table.values[begin:end] = torch.inf
                drop_smallest(table, drop)
                begin -= drop if begin else 0
                table.values[begin : begin + len(other)] = other
    nnz = table.nnz
    cols = table.cols[:nnz].clone() if table.kind == "cols8" else table.cols
    small = PackedTable(table.rows, table.dim, table.kind, table.index, cols, table.values[:nnz].clone(), table.backend)
    kind = cheapest_kind(table.rows, table.dim, nnz)
    if kind != small.kind:
        small.convert_(kind)
    return small


def randomise(table: PackedTable, seed: int) -> None:
    """Replace the weights by uniform numbers, so that the smallest are a random choice."""
    source = torch.Generator().manual_seed(seed)  # of the CPU, whatever the table is on: the same draws
    nnz = table.nnz
    drawn = torch.rand(nnz, generator=source) + 0.5
    table.values[:nnz] = drawn.to(table.values)


def restore(table: PackedTable, full: PackedTable) -> None:
    """Set the weights to those that the full table has in their places. Holds both of them dense for as long."""
    mask = table.mask()
    _, _, values = ops.pack(full.to_dense(), mask, table.kind, table.capacity)
    table.values.copy_(values)
