"""The index of another kind for the same kept slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native, layout
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices

if TYPE_CHECKING:
    from recsparse.table import PackedTable

_native.load()


def convert_index(table: PackedTable, kind: str) -> tuple[Tensor, Tensor]:
    """Describe the kept slots of `table` by an index of `kind`. The table stays as it is; see `PackedTable.convert_`.

    Returns:
        (index int64 [words], cols uint8 [capacity] for `cols8`, else empty).

    Raises:
        ValueError: `kind` is unknown, or cannot hold a row; names the first such row.
    """
    arguments = (table.index, table.cols, table.capacity, *table.layout, layout.kind_code(kind))
    found: tuple[Tensor, Tensor] = implementation(table.backend).convert_index(*arguments)
    return found


def fits(table: PackedTable, kind: str) -> bool:
    """Whether `kind` can hold every row of `table`."""
    arguments = (table.index, table.cols, table.capacity, *table.layout, layout.kind_code(kind))
    if kind == "full" and table.capacity != table.rows * table.dim:
        return False
    return int(implementation(table.backend).misfit_row(*arguments)) < 0


@torch.library.register_fake("recsparse::convert_index")
def _(
    index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int, to_kind: int
) -> tuple[Tensor, Tensor]:
    check_devices("convert_index", index, cols=cols)
    words = torch.ops.recsparse.index_words(to_kind, rows, dim)
    return index.new_empty(words), cols.new_empty(capacity if to_kind == layout.KINDS["cols8"] else 0)
