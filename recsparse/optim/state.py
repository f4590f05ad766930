"""Optimisers bound to one table: hyper-parameters, and state that exists only where a weight is kept.

State of the weights lies in the order of `table.values`, so that `prune_regrow_` moves both alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from recsparse import _native, ops
from recsparse.errors import InvariantError
from recsparse.table import PackedTable, advise_huge_pages

_CHECKED_AT_ONCE = 1 << 24  # floats


def _zeros(count: int, device: torch.device) -> Tensor:
    """float32 [count] on huge pages where its size allows: advice must come before the pages are touched."""
    tensor = torch.empty(count, device=device)
    advise_huge_pages(tensor)
    return tensor.zero_()


class TableOptimizer(ABC):
    """What the optimisers share.

    Attributes:
        table: the table that is trained.
        lr, eps, weight_decay, lazy: see `recsparse.ops.adam_`.
        step: int64 [1], updates done; the ops advance it.
        seed: of the stochastic rounding of weights that are stored in 16 bits; any 64-bit integer.
    """

    name: ClassVar[str]
    code: ClassVar[int]  # `Optimizer` in csrc/core/update.h
    state_name: ClassVar[str] = ""  # attribute that holds the state; empty: there is none
    floats_per_weight: ClassVar[int] = 0

    def __init__(
        self, table: PackedTable, lr: float, eps: float, weight_decay: float, lazy: bool, seed: int, state: int
    ) -> None:
        _native.load()
        if not lr > 0 or not eps > 0 or not weight_decay >= 0:
            raise ValueError(f"lr = {lr} and eps = {eps} must be positive, weight_decay = {weight_decay} at least 0")
        self.table = table
        self.lr, self.eps, self.weight_decay, self.lazy, self.seed = lr, eps, weight_decay, lazy, seed
        device = table.values.device
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        self._no_state = torch.empty(0, device=device)
        if self.state_name:
            setattr(self, self.state_name, _zeros(state, device))

    @property
    def state(self) -> Tensor:
        """float32, the state tensor; empty where there is none."""
        return getattr(self, self.state_name) if self.state_name else self._no_state

    @property
    def weight_state(self) -> Tensor | None:
        """The state of the weights, which `prune_regrow_` has to move with them; None where weights have none."""
        return self.state if self.floats_per_weight else None

    @property
    def hyper(self) -> tuple[int, float, float, float, float, float]:
        """(code, lr, beta1, beta2, eps, weight_decay), as `bpr_step_` takes them."""
        return (self.code, self.lr, 0.0, 0.0, self.eps, self.weight_decay)

    @abstractmethod
    def _update(self, grad: Tensor, ids: Tensor | None) -> None: ...

    def update_rows(self, ids: Tensor, grad: Tensor) -> None:
        """One step from the gradients of some rows: float32 `grad` [n, dim], int64 `ids` [n]; duplicates are summed."""
        self._update(grad, ids)

    def update_dense(self, grad: Tensor) -> None:
        """One step from the gradient of the dense weight, float32 [rows, dim]; only kept columns are read."""
        self._update(grad, None)

    def update_packed(self, grad: Tensor) -> None:
        """One step from the gradient of `table.values`, float32 [capacity]."""
        self._update(grad, None)

    def nbytes(self) -> int:
        """Exact bytes of the state, without the step counter."""
        return self.state.numel() * self.state.element_size()

    def state_dict(self) -> dict[str, Tensor]:
        """The state tensor, by its name, and `step`: not copies."""
        return ({self.state_name: self.state} if self.state_name else {}) | {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy a state of the same size.

        Raises:
            ValueError: a tensor is missing or has another shape or dtype.
        """
        for name, own in self.state_dict().items():
            new = state.get(name)
            if new is None or new.shape != own.shape or new.dtype != own.dtype:
                found = "nothing" if new is None else f"{new.dtype} {list(new.shape)}"
                raise ValueError(f"{name}: found {found}, expected {own.dtype} {list(own.shape)}")
        for name, own in self.state_dict().items():
            own.copy_(state[name])

    def check_invariants(self) -> None:
        """State is finite, sums of squares are not negative, and there is nothing behind the kept weights.

        Raises:
            InvariantError: says which one is broken, and where.
        """
        used = self.floats_per_weight * self.table.nnz if self.floats_per_weight else self.state.numel()
        for begin in range(0, self.state.numel(), _CHECKED_AT_ONCE):
            part = self.state[begin : begin + _CHECKED_AT_ONCE]
            place = torch.arange(begin, begin + len(part), device=part.device)
            squares = part[max(1, self.floats_per_weight) - 1 :: max(1, self.floats_per_weight)]
            if bool((~torch.isfinite(part)).any()):
                at = int(place[~torch.isfinite(part)][0])
                raise InvariantError(f"{self.state_name}[{at}] is {float(self.state[at])}, expected a finite number")
            if bool((squares < 0).any()):
                raise InvariantError(f"{self.state_name} has a negative sum of squares: {float(squares.min())}")
            if bool(part[place >= used].any()):
                at = int(place[(place >= used) & (part != 0)][0])
                raise InvariantError(f"{self.state_name}[{at}] lies behind the kept weights and is not zero")


class Adam(TableOptimizer):
    """Adam; see `recsparse.ops.adam_`.

    With `lazy` a row that a gradient does not name keeps its moments as they are, and bias correction uses the global
    step: the semantics of `torch.optim.SparseAdam` on the masked weight. Without, those of `torch.optim.Adam`.

    Attributes:
        moments: float32 [2 * capacity]: the first and second moment of weight i at 2i and 2i + 1.
    """

    name, code, state_name, floats_per_weight = "adam", 3, "moments", 2
    moments: Tensor

    def __init__(
        self,
        table: PackedTable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        lazy: bool = True,
        seed: int = 0,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas = {betas} must lie in [0, 1)")
        super().__init__(table, lr, eps, weight_decay, lazy, seed, 2 * table.capacity)
        self.betas = betas

    @property
    def hyper(self) -> tuple[int, float, float, float, float, float]:
        return (self.code, self.lr, *self.betas, self.eps, self.weight_decay)

    def split(self) -> tuple[Tensor, Tensor]:
        """First and second moments in the order of `table.values`, float32 [nnz] each: copies, for inspection."""
        pairs = self.moments.view(-1, 2)[: self.table.nnz]
        return pairs[:, 0].clone(), pairs[:, 1].clone()

    def _update(self, grad: Tensor, ids: Tensor | None) -> None:
        ops.adam_(
            self.table,
            self.moments,
            self.step,
            grad,
            ids,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            lazy=self.lazy,
            seed=self.seed,
        )


class Adagrad(TableOptimizer):
    """Adagrad; see `recsparse.ops.adagrad_`.

    Attributes:
        sums: float32 [capacity], in the order of `table.values`. Kept weights start at `initial_accumulator_value`,
            weights that grow later at 0.
    """

    name, code, state_name, floats_per_weight = "adagrad", 1, "sums", 1
    sums: Tensor

    def __init__(
        self,
        table: PackedTable,
        lr: float = 1e-2,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        lazy: bool = True,
        seed: int = 0,
    ) -> None:
        if not initial_accumulator_value >= 0:
            raise ValueError(f"initial_accumulator_value = {initial_accumulator_value} must be at least 0")
        super().__init__(table, lr, eps, weight_decay, lazy, seed, table.capacity)
        if initial_accumulator_value > 0:
            self.sums[: table.nnz] = initial_accumulator_value

    def _update(self, grad: Tensor, ids: Tensor | None) -> None:
        options = {"lr": self.lr, "eps": self.eps, "weight_decay": self.weight_decay}
        ops.adagrad_(self.table, self.sums, self.step, grad, ids, **options, lazy=self.lazy, seed=self.seed)


class RowWiseAdagrad(TableOptimizer):
    """Adagrad with one sum a row; see `recsparse.ops.rowwise_adagrad_`.

    Attributes:
        sums: float32 [rows].
    """

    name, code, state_name, floats_per_weight = "rowwise_adagrad", 2, "sums", 0
    sums: Tensor

    def __init__(
        self,
        table: PackedTable,
        lr: float = 1e-2,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        lazy: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(table, lr, eps, weight_decay, lazy, seed, table.rows)

    def _update(self, grad: Tensor, ids: Tensor | None) -> None:
        options = {"lr": self.lr, "eps": self.eps, "weight_decay": self.weight_decay}
        ops.rowwise_adagrad_(self.table, self.sums, self.step, grad, ids, **options, lazy=self.lazy, seed=self.seed)


class SGD(TableOptimizer):
    """Stochastic gradient descent, without state; see `recsparse.ops.sgd_`."""

    name, code = "sgd", 0

    def __init__(
        self, table: PackedTable, lr: float = 1e-3, weight_decay: float = 0.0, lazy: bool = True, seed: int = 0
    ) -> None:
        super().__init__(table, lr, 1.0, weight_decay, lazy, seed, 0)

    def _update(self, grad: Tensor, ids: Tensor | None) -> None:
        options = {"lr": self.lr, "weight_decay": self.weight_decay}
        ops.sgd_(self.table, self.step, grad, ids, **options, lazy=self.lazy, seed=self.seed)


OPTIMIZERS: dict[str, type[TableOptimizer]] = {each.name: each for each in (Adam, Adagrad, RowWiseAdagrad, SGD)}
