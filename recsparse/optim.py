"""Optimiser state that exists only where a weight is kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recsparse import _native
from recsparse.errors import InvariantError
from recsparse.table import PackedTable


class LazyAdam:
    """Adam on touched rows only, with the semantics of `torch.optim.SparseAdam` on the masked weight.

    A row that a mini-batch does not touch keeps its moments as they are; bias correction uses the global step.

    Attributes:
        moments: float32 [2 * capacity]. A row with n kept weights that start at s has its first moments at
            [2s, 2s + n) and its second moments at [2s + n, 2s + 2n): both lie in the same cache lines.
        step: mini-batches done.
        seed: of the stochastic rounding of weights that are stored in 16 bits; any 64-bit integer.

    Raises:
        ValueError: a hyper-parameter is out of range.
    """

    def __init__(
        self,
        table: PackedTable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        seed: int = 0,
    ) -> None:
        _native.load()
        if not lr > 0 or not eps > 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"lr = {lr} and eps = {eps} must be positive, betas = {betas} in [0, 1)")
        self.table = table
        self.lr, self.betas, self.eps, self.seed = lr, betas, eps, seed
        self.step = 0
        self.moments = torch.empty(2 * table.capacity)
        torch.ops.recsparse.advise_huge_pages(self.moments)
        self.moments.zero_()

    def nbytes(self) -> int:
        """Exact bytes of the state."""
        return self.moments.numel() * self.moments.element_size()

    def split(self) -> tuple[Tensor, Tensor]:
        """First and second moments in the order of `table.values`, float32 [nnz] each: copies, for inspection."""
        counts = self.table.row_counts()
        starts = counts.cumsum(0) - counts
        row = torch.repeat_interleave(torch.arange(self.table.rows), counts)
        first = torch.arange(self.table.nnz) + starts[row]
        return self.moments[first], self.moments[first + counts[row]]

    def state_dict(self) -> dict[str, Any]:
        """`moments` (the tensor itself) and `step`."""
        return {"moments": self.moments, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy a state of the same size.

        Raises:
            ValueError: the moments have another shape.
        """
        moments = state["moments"]
        if moments.shape != self.moments.shape or moments.dtype != self.moments.dtype:
            raise ValueError(f"moments: found {list(moments.shape)}, expected {list(self.moments.shape)}")
        self.moments.copy_(moments)
        self.step = int(state["step"])

    def check_invariants(self) -> None:
        """Moments are finite, second moments are not negative, and there is none behind the kept weights.

        Raises:
            InvariantError: says which one is broken.
        """
        table = self.table
        broken = torch.ops.recsparse.check_moments(self.moments, table.index, table.cols, *table.layout)
        if broken:
            raise InvariantError(broken)
