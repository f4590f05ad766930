"""From a budget in bytes, or a density, to the shape of a table.

**budget** = stored bytes of the table, values and index together. **density** = kept weights / (rows x dim). Both are
exact: a table planned here never holds a byte, or a weight, more than it was granted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from recsparse import layout
from recsparse.config import PolicyConfig
from recsparse.errors import UserError

DENSE_BYTES = 4  # of a weight of the dense fp32 table
SPARSE_KINDS = ("bits", "cols8")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True)
class TablePlan:
    """Shape of a table: index kind, columns, the number of weights that its values tensor holds, and their type."""

    kind: str
    rows: int
    dim: int
    capacity: int
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        """Stored bytes when every weight of the capacity is kept."""
        return layout.stored_nbytes(self.kind, self.rows, self.dim, self.capacity, layout.VALUE_BYTES[self.dtype])


def dense_nbytes(rows: int, dim: int) -> int:
    """Bytes of the dense fp32 table, the 100 % of a relative budget."""
    return rows * dim * DENSE_BYTES


def parse_budget(text: str, rows: int, dim: int) -> int:
    """Bytes granted by `20%` (of dense fp32), `1.2GB` (10^9), `800MiB` (2^20) or `123456B`; exact, rounded down.

    Raises:
        UserError: not such a text, or more than the dense table.
    """
    dense = dense_nbytes(rows, dim)
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|[kmgt]?i?b)\s*", text, flags=re.IGNORECASE)
    unit = match.group(2).lower().removesuffix("b") if match else ""
    if match is None or (unit != "%" and unit not in _UNITS):
        raise UserError(
            f"policy.budget is {text!r}; expected a share of dense fp32 as 20% or bytes as 1.2GB, 800MiB, 4096B"
        )
    amount = Fraction(match.group(1))
    nbytes = math.floor(amount * dense / 100 if unit == "%" else amount * _UNITS[unit])
    if nbytes > dense:
        raise UserError(
            f"policy.budget {text} is {nbytes} bytes, above the dense table "
            f"({rows} rows x {dim} x {DENSE_BYTES} bytes = {dense}); give at most 100%"
        )
    return nbytes


def plan_dense(rows: int, dim: int, dtype: str = "float32") -> TablePlan:
    return TablePlan("full", rows, dim, rows * dim, dtype)


def plan_small_dense(policy: PolicyConfig, rows: int, dim: int, dtype: str = "float32") -> TablePlan:
    """Narrower dense table: as many of `dim` columns as the bytes pay for, or the same parameters as a density."""
    if policy.density is not None:
        columns = round(policy.density * dim)
        granted = f"policy.density {policy.density}"
    else:
        text = _required_budget(policy)
        columns = min(dim, parse_budget(text, rows, dim) // (layout.VALUE_BYTES[dtype] * rows))
        granted = f"policy.budget {text}"
    if columns < 1:
        column = (
            Fraction(1, dim) if policy.density is not None else Fraction(layout.VALUE_BYTES[dtype], DENSE_BYTES * dim)
        )
        raise UserError(f"{granted} affords less than one column of {rows} rows; the least is {_percent(column)}")
    return TablePlan("full", rows, columns, rows * columns, dtype)


def plan_sparse(
    policy: PolicyConfig, rows: int, dim: int, dtype: str = "float32", kinds: Sequence[str] = SPARSE_KINDS
) -> TablePlan:
    """Sparse table with the most weights that the budget pays for, or with exactly the weights of a density.

    `kind: auto` takes the one of `kinds` that affords the most weights under a budget, the fewest bytes under a
    density.

    Raises:
        UserError: less than one weight a row, or more than dense.
    """
    value_bytes = layout.VALUE_BYTES[dtype]
    value_bytes = layout.VALUE_BYTES[dtype]
    if policy.kind != "auto":
        kinds = (policy.kind,)
    if policy.density is not None:
        capacity = round(policy.density * rows * dim)
        plans = [TablePlan(kind, rows, dim, capacity, dtype) for kind in kinds]
        plan = min(plans, key=lambda candidate: candidate.nbytes)
        granted, least = f"policy.density {policy.density}", f"{math.ceil(10**6 / dim) / 10**6:g}"
    else:
        text = _required_budget(policy)
        nbytes = parse_budget(text, rows, dim)
        room = {kind: layout.capacity_for_nbytes(kind, rows, dim, nbytes, value_bytes) for kind in kinds}
        kind = max(kinds, key=lambda candidate: room[candidate])
        plan = TablePlan(kind, rows, dim, min(room[kind], rows * dim), dtype)
        granted = f"policy.budget {text}"
        one_a_row = min(layout.stored_nbytes(each, rows, dim, rows, value_bytes) for each in kinds)
        least = _percent(Fraction(one_a_row, dense_nbytes(rows, dim)))
    if plan.capacity < rows:
        raise UserError(f"{granted} affords less than one weight a row ({rows} rows); the least is {least}")
    return plan


def _required_budget(policy: PolicyConfig) -> str:
    if policy.budget is None:
        raise UserError(
            f"policy {policy.name} needs a size: give policy.budget (for example 20%) or policy.density (0.2)"
        )
    return policy.budget


def _percent(share: Fraction) -> str:
    """Rounded up, so that the figure is one that works."""
    return f"{math.ceil(share * 10_000) / 100:g}%"
