"""Ordinary torch optimisers for parameters that are the values of a packed table, as those of a `SparseEmbedding`.

Such a parameter, float [capacity], has an attribute `packed_table`: a `PackedTable` that has the parameter's data as
its `values`. Its gradient is packed, in the same order. Every kept weight is updated at every step, as torch's dense
optimisers do, in one pass over weights, state and gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from recsparse import ops
from recsparse.table import PackedTable


def _table_of(parameter: Tensor, number: int) -> PackedTable:
    table = getattr(parameter, "packed_table", None)
    if not isinstance(table, PackedTable):
        raise ValueError(
            f"parameter {number} of shape {list(parameter.shape)} has no `packed_table`: this optimiser is for the "
            "values of packed tables, as SparseEmbedding.values; give the others to an optimiser of torch"
        )
    if table.values.data_ptr() != parameter.data_ptr() or table.values.shape != parameter.shape:
        raise ValueError(f"parameter {number} and the values of its `packed_table` are not the same memory")
    return table


class _Packed(Optimizer, ABC):
    """Checks the parameters, makes their state, and calls the op for each one that has a gradient."""

    def __init__(self, params: Any, defaults: dict[str, Any], limits: dict[str, Callable[[Any], bool]]) -> None:
        self._limits = limits
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name, holds in self._limits.items():
            if not holds(group[name]):
                self.param_groups.pop()
                raise ValueError(f"{type(self).__name__}: {name} = {group[name]} is out of range")
        try:
            for number, parameter in enumerate(group["params"]):
                _table_of(parameter, number)
        except ValueError:
            self.param_groups.pop()
            raise

    def _initial(self, table: PackedTable, group: dict[str, Any]) -> dict[str, Tensor]:
        """State of a table, without the step."""
        return {}

    @abstractmethod
    def _update(self, table: PackedTable, state: dict[str, Any], grad: Tensor, group: dict[str, Any]) -> None: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient.

        Args:
            closure: evaluates the loss again and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for number, parameter in enumerate(group["params"]):
                if parameter.grad is None:
                    continue
                table = _table_of(parameter, number)
                state = self.state[parameter]
                if not state:
                    state.update(self._initial(table, group), step=table.values.new_zeros(1, dtype=torch.int64))
                self._update(table, state, parameter.grad, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `torch.optim.Optimizer.load_state_dict`; state keeps its own dtype, also beside 16-bit weights."""
        super().load_state_dict(state_dict)
        packed = state_dict["state"]
        saved = [number for group in state_dict["param_groups"] for number in group["params"]]
        own = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(saved, own, strict=True):
            if number in packed:
                self.state[parameter] = {name: tensor.clone() for name, tensor in packed[number].items()}


_POSITIVE: Callable[[Any], bool] = lambda x: x > 0  # noqa: E731
_NOT_NEGATIVE: Callable[[Any], bool] = lambda x: x >= 0  # noqa: E731


class PackedAdam(_Packed):
    """`torch.optim.Adam` on the masked dense weight of each parameter; see `recsparse.ops.adam_`.

    Args:
        params: parameters with an attribute `packed_table`, or groups of them.
        lr: step size.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment.
        weight_decay: L2 penalty, coupled.
        seed: of the stochastic rounding of 16-bit weights.

    Raises:
        ValueError: a parameter is not the values of a packed table, or a hyper-parameter is out of range.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "seed": seed}
        limits = {"lr": _NOT_NEGATIVE, "eps": _POSITIVE, "weight_decay": _NOT_NEGATIVE}
        limits["betas"] = lambda betas: all(0 <= beta < 1 for beta in betas)
        super().__init__(params, defaults, limits)

    def _initial(self, table: PackedTable, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"moments": table.values.new_zeros(2 * table.capacity, dtype=torch.float32)}

    def _update(self, table: PackedTable, state: dict[str, Any], grad: Tensor, group: dict[str, Any]) -> None:
        names = ("lr", "betas", "eps", "weight_decay", "seed")
        ops.adam_(table, state["moments"], state["step"], grad, **{name: group[name] for name in names})


class PackedAdagrad(_Packed):
    """`torch.optim.Adagrad` on the masked dense weight of each parameter; see `recsparse.ops.adagrad_`.

    Args:
        params: parameters with an attribute `packed_table`, or groups of them.
        lr: step size.
        eps: added to the root of the sum.
        weight_decay: L2 penalty, coupled.
        initial_accumulator_value: start of the sums.
        seed: of the stochastic rounding of 16-bit weights.

    Raises:
        ValueError: a parameter is not the values of a packed table, or a hyper-parameter is out of range.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        seed: int = 0,
    ) -> None:
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "seed": seed}
        defaults["initial_accumulator_value"] = initial_accumulator_value
        limits = dict.fromkeys(("lr", "weight_decay", "initial_accumulator_value"), _NOT_NEGATIVE) | {"eps": _POSITIVE}
        super().__init__(params, defaults, limits)

    def _initial(self, table: PackedTable, group: dict[str, Any]) -> dict[str, Tensor]:
        sums = table.values.new_zeros(table.capacity, dtype=torch.float32)
        sums[: table.nnz] = group["initial_accumulator_value"]
        return {"sums": sums}

    def _update(self, table: PackedTable, state: dict[str, Any], grad: Tensor, group: dict[str, Any]) -> None:
        names = ("lr", "eps", "weight_decay", "seed")
        ops.adagrad_(table, state["sums"], state["step"], grad, **{name: group[name] for name in names})


class PackedRowWiseAdagrad(_Packed):
    """Adagrad with one sum a row; see `recsparse.ops.rowwise_adagrad_`.

    Args:
        params: parameters with an attribute `packed_table`, or groups of them.
        lr: step size.
        eps: added to the root of the sum.
        weight_decay: L2 penalty, coupled.
        seed: of the stochastic rounding of 16-bit weights.

    Raises:
        ValueError: a parameter is not the values of a packed table, or a hyper-parameter is out of range.
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, eps: float = 1e-10, weight_decay: float = 0.0, seed: int = 0
    ) -> None:
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "seed": seed}
        super().__init__(params, defaults, {"lr": _NOT_NEGATIVE, "eps": _POSITIVE, "weight_decay": _NOT_NEGATIVE})

    def _initial(self, table: PackedTable, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"sums": table.values.new_zeros(table.rows, dtype=torch.float32)}

    def _update(self, table: PackedTable, state: dict[str, Any], grad: Tensor, group: dict[str, Any]) -> None:
        names = ("lr", "eps", "weight_decay", "seed")
        ops.rowwise_adagrad_(table, state["sums"], state["step"], grad, **{name: group[name] for name in names})


class PackedSGD(_Packed):
    """`torch.optim.SGD` without momentum on the masked dense weight of each parameter; see `recsparse.ops.sgd_`.

    Args:
        params: parameters with an attribute `packed_table`, or groups of them.
        lr: step size.
        weight_decay: L2 penalty.
        seed: of the stochastic rounding of 16-bit weights.

    Raises:
        ValueError: a parameter is not the values of a packed table, or a hyper-parameter is out of range.
    """

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.0, seed: int = 0) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "seed": seed}
        super().__init__(params, defaults, {"lr": _NOT_NEGATIVE, "weight_decay": _NOT_NEGATIVE})

    def _update(self, table: PackedTable, state: dict[str, Any], grad: Tensor, group: dict[str, Any]) -> None:
        ops.sgd_(table, state["step"], grad, lr=group["lr"], weight_decay=group["weight_decay"], seed=group["seed"])
