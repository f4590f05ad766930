"""Tables for the tests of the Triton kernels: on a GPU, or on the CPU under the interpreter.

The modules `triton_kernels/*_cases.py` run in processes of their own, which `test_triton.py` starts, because triton
reads TRITON_INTERPRET when it is imported.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import torch
from strategies import random_table
from torch import Tensor

from recsparse.optim import TableOptimizer
from recsparse.table import PackedTable


def _module(name: str) -> Any:
    """A module of the package: an op has the name of its module, and hides it as an attribute of the package."""
    return importlib.import_module(f"recsparse.triton_kernels.{name}")


bpr_grow_scores, bpr_step, init = map(_module, ("bpr_grow_scores", "bpr_step", "init"))
lightgcn_batch, lightgcn_step, lookup_bag = map(_module, ("lightgcn_batch", "lightgcn_step", "lookup_bag"))
prune_regrow, rank, sample_synthetic = map(_module, ("prune_regrow", "rank", "sample_synthetic"))
select, spmm = map(_module, ("select", "spmm"))

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# One word of mask a row, whole words and not, five words (a block of two lines), eight (another), 16-bit lengths.
DIMS_OF_EVERY_BLOCK = (1, 33, 64, 100, 160, 256)
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
if INTERPRETED:  # its time is that of programs, not of slots
    bpr_step.SCORE_SLOTS *= 4
    bpr_step.UPDATE_SLOTS *= 2
    bpr_grow_scores.SCORE_SLOTS = bpr_step.SCORE_SLOTS
    for module in (init, lookup_bag, prune_regrow):
        module.SLOTS *= 2
    spmm.ROWS *= 64
    lightgcn_step.ROWS = spmm.ROWS
    lightgcn_batch.SCORE_SLOTS, lightgcn_batch.GRADIENT_SLOTS = bpr_step.SCORE_SLOTS, bpr_step.UPDATE_SLOTS
    rank.BLOCK_ITEMS *= 4
    sample_synthetic.ACROSS *= 16


def on_device(*tensors: Tensor) -> Any:
    """Copies of tensors on the device under test; one of them alone, or a tuple."""
    moved = tuple(tensor.to(DEVICE, copy=True) for tensor in tensors)
    return moved if len(moved) > 1 else moved[0]


def on_triton(table: PackedTable) -> PackedTable:
    """A copy of a table that the Triton kernels serve."""
    tensors = on_device(table.index, table.cols, table.values.detach())
    return PackedTable(table.rows, table.dim, table.kind, *tensors, backend="triton")


def pair(kind: str, rows: int, dim: int, **options: Any) -> tuple[PackedTable, PackedTable]:
    """The same random table for the native kernels and for Triton's."""
    table = random_table(kind, rows, dim, **options)
    return table, on_triton(table)


def assert_same_table(found: PackedTable, want: PackedTable) -> None:
    """Equal bit for bit."""
    for name, tensor in want.state_dict().items():
        assert torch.equal(found.state_dict()[name].cpu().view(torch.uint8), tensor.view(torch.uint8)), name


def copy_optimizer(optimizer: TableOptimizer, table: PackedTable, **options: Any) -> TableOptimizer:
    """The optimiser of another table with the same state."""
    other = type(optimizer)(table, **options)
    other.load_state_dict(optimizer.state_dict())
    return other
