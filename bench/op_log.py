"""Time and bytes of every recsparse op that a program calls, as a dispatch mode around it.

with OpLog() as log:
    ...
rows = log.rows(Ceilings())
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recsparse.layout import KINDS
from recsparse.optim import OPTIMIZERS
from recsparse.table import PackedTable

from . import inputs, memory
from .ceilings import Ceilings
from .registry import Traffic

_KIND_NAMES = {code: name for name, code in KINDS.items()}


def _table(given: dict[str, Any]) -> PackedTable:
    kind = _KIND_NAMES[given["kind"]]
    return PackedTable(given["rows"], given["dim"], kind, given["index"], given["cols"], given["values"])


def _rows_out(given: dict[str, Any], count: int) -> int:
    """Bytes of ids read and of dense rows written."""
    return count * (8 + given["dim"] * given["values"].element_size())


def _lookup(given: dict[str, Any]) -> Traffic:
    count = given["ids"].numel()
    return replace(inputs.packed_gather(count, _table(given)), stream=_rows_out(given, count))


def _bpr_step(given: dict[str, Any]) -> Traffic:
    table = _table(given)
    arrays = 1 + next(each.floats_per_weight for each in OPTIMIZERS.values() if each.code == given["optimizer"])
    traffic = inputs.packed_gather(3 * given["users"].numel(), table, arrays=arrays, passes=2)
    return replace(traffic, table=table.nbytes()["total"] + memory.nbytes(given["state"]))


def _optimizer_step(given: dict[str, Any]) -> Traffic:
    """Weights and state read and written, the gradient read: all of them, or the rows that the gradient names."""
    table, grad, ids = _table(given), given["grad"], given["ids"]
    state = given.get("moments", given.get("sums", table.values[:0]))
    if ids is None or not given["lazy"]:
        read = grad.element_size() * table.nnz if ids is None else memory.nbytes(grad, ids)
        return Traffic(stream=2 * (table.nbytes()["values"] + memory.nbytes(state)) + read)
    arrays = 1 + state.numel() // max(1, table.capacity)
    return replace(inputs.packed_gather(ids.numel(), table, arrays, passes=2), stream=memory.nbytes(grad, ids))


def _grow_scores(given: dict[str, Any]) -> Traffic:
    return inputs.packed_gather(3 * given["users"].numel(), _table(given))


def _prune_regrow(given: dict[str, Any]) -> Traffic:
    stored = _table(given).nbytes()
    state = 0 if given["state"] is None else memory.nbytes(given["state"])
    candidates = memory.nbytes(given["keys"], given["scores"])
    # Values are read once to select; then all is read and written.
    return Traffic(stream=stored["values"] + 2 * (stored["total"] + state) + candidates)


def _values(given: dict[str, Any]) -> Traffic:
    return Traffic(stream=memory.nbytes(given["values"]))


def _spmm(given: dict[str, Any]) -> Traffic:
    x, entries = given["x"], given["neighbours"]
    row = x.shape[1] * x.element_size()
    stream = memory.nbytes(entries, given["offsets"], given["node"]) + memory.nbytes(x)
    return Traffic(gather=entries.numel() * row, line=inputs.dense_line(row), table=memory.nbytes(x), stream=stream)


def _lightgcn_step(given: dict[str, Any]) -> Traffic:
    """The products over all edges; the two that touch the rows of a mini-batch alone are left out."""
    row = given["dim"] * (2 if given["half_hidden"] else 4)
    table = given["rows"] * row
    products = (2 * given["layers"] - 2) * -(-given["users"].numel() // given["batch_size"])
    gathered = given["neighbours"].numel() * row
    stream = memory.nbytes(given["neighbours"]) + table
    return Traffic(gather=products * gathered, line=inputs.dense_line(row), table=table, stream=products * stream)


MODELS: dict[str, Callable[[dict[str, Any]], Traffic]] = {
    "lookup": _lookup,
    "bpr_step_": _bpr_step,
    "bpr_grow_scores": _grow_scores,
    "prune_regrow_": _prune_regrow,
    **dict.fromkeys(("adam_", "adagrad_", "rowwise_adagrad_", "sgd_"), _optimizer_step),
    "spmm": _spmm,
    "lightgcn_step_": _lightgcn_step,
    "select": _values,
    "init_values_": _values,
}
"""Bytes that a call moves, from its arguments by name; ops without an entry are timed only."""


@dataclass
class _Calls:
    seconds: float = 0.0
    count: int = 0
    traffic: list[Traffic] = field(default_factory=list)


class OpLog(TorchDispatchMode):
    """Counts the ops of the namespace ``recsparse`` while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self._ops: dict[str, _Calls] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace != "recsparse":
            return func(*args, **kwargs)
        start = time.perf_counter()
        out = func(*args, **kwargs)
        if any(isinstance(each, Tensor) and each.is_cuda for each in args):
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - start
        name = func._schema.name.removeprefix("recsparse::")
        calls = self._ops.setdefault(name, _Calls())
        calls.seconds += elapsed
        calls.count += 1
        if name in MODELS:
            places = (argument.name for argument in func._schema.arguments)
            calls.traffic.append(MODELS[name](dict(zip(places, args, strict=False))))
        return out

    def rows(self, ceilings: Ceilings) -> list[dict[str, Any]]:
        """One entry an op, the longest first: op, calls, seconds, us_per_call, and where there is a byte model:
        bytes_model (of all calls), gbps and pct_ceiling (the time at the ceilings over the time taken)."""
        found = []
        for name, calls in sorted(self._ops.items(), key=lambda each: -each[1].seconds):
            row = {
                "op": name,
                "calls": calls.count,
                "seconds": calls.seconds,
                "us_per_call": calls.seconds / calls.count * 1e6,
                **dict.fromkeys(("bytes_model", "gbps", "pct_ceiling")),
            }
            if calls.traffic:
                moved = sum(traffic.total for traffic in calls.traffic)
                roof_us = sum(ceilings.microseconds(traffic) for traffic in calls.traffic)
                row |= {
                    "bytes_model": moved,
                    "gbps": moved / calls.seconds / 1e9,
                    "pct_ceiling": roof_us / calls.seconds / 1e4,
                }
            found.append(row)
        return found
