"""Dense rows and a mask to a packed table, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native, layout
from recsparse.backend import resolve_backend
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices

if TYPE_CHECKING:
    from recsparse.table import PackedTable

_native.load()


def pack(
    dense: Tensor, mask: Tensor, kind: str, capacity: int, *, backend: str = "auto"
) -> tuple[Tensor, Tensor, Tensor]:
    """Pack the slots of `dense` where `mask` is set.

    Args:
        dense: float32, float16 or bfloat16 (or float64) [rows, dim], dim at most 256.
        mask: bool [rows, dim].
        kind: `full`, `prefix`, `bits` or `cols8`.
        capacity: length of the values tensor, at least the number of kept weights.
        backend: see `recsparse.backend.resolve_backend`.

    Returns:
        (index int64, cols uint8, values [capacity]), the tensors of a `PackedTable`.

    Raises:
        ValueError: more kept weights than capacity, or a mask that `kind` cannot hold; names the first row at fault.
    """
    op = implementation(resolve_backend(backend, dense.device.type)).pack
    made: tuple[Tensor, Tensor, Tensor] = op(dense, mask, layout.kind_code(kind), capacity)
    return made


def unpack(table: PackedTable) -> tuple[Tensor, Tensor]:
    """The inverse of `pack`, bit for bit.

    Returns:
        (dense [rows, dim] of the values' dtype, mask bool [rows, dim]).
    """
    arguments = (table.index, table.cols, table.values, *table.layout)
    found: tuple[Tensor, Tensor] = implementation(table.backend).unpack(*arguments)
    return found


@torch.library.register_fake("recsparse::pack")
def _(dense: Tensor, mask: Tensor, kind: int, capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    check_devices("pack", dense, mask=mask)
    rows, dim = dense.shape
    words = torch.ops.recsparse.index_words(kind, int(rows), int(dim))
    index = dense.new_empty(words, dtype=torch.int64)
    cols = dense.new_empty(capacity if kind == layout.KINDS["cols8"] else 0, dtype=torch.uint8)
    return index, cols, dense.new_empty(capacity)


@torch.library.register_fake("recsparse::unpack")
def _(index: Tensor, cols: Tensor, values: Tensor, kind: int, rows: int, dim: int) -> tuple[Tensor, Tensor]:
    check_devices("unpack", values, index=index, cols=cols)
    return values.new_empty(rows, dim), values.new_empty(rows, dim, dtype=torch.bool)
