"""Growth scores: the gradient of slots that are not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices

if TYPE_CHECKING:
    from recsparse.table import PackedTable

_native.load()


def bpr_grow_scores(
    table: PackedTable, users: Tensor, pos: Tensor, neg: Tensor, *, item_offset: int, limit: int
) -> tuple[Tensor, Tensor]:
    """|dL/dw| of the slots that are not kept, L = mean softplus(s_neg - s_pos) over the triples, at current weights.

    This is the growth score of dynamic sparse training (RigL, DSL), for touched rows only and without a dense gradient:
    a row's full-width gradient lives in registers.

    Args:
        table: joint table, users in rows [0, item_offset), items behind them.
        users, pos, neg: int64 [n] ids as for `bpr_step_`, n below 2^24.
        item_offset: number of user rows.
        limit: candidates to return at most: the largest scores, ties to the lower key.

    Returns:
        (keys int64 ascending, flat row * dim + column; scores float32 > 0).

    Raises:
        IndexError: an id is out of range.
        TypeError, ValueError: wrong dtype, device, layout or shape.
    """
    arguments = (table.index, table.cols, table.values, users, pos, neg, *table.layout, item_offset, limit)
    found: tuple[Tensor, Tensor] = implementation(table.backend).bpr_grow_scores(*arguments)
    return found


@torch.library.register_fake("recsparse::bpr_grow_scores")
def _(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    users: Tensor,
    pos: Tensor,
    neg: Tensor,
    kind: int,
    rows: int,
    dim: int,
    item_offset: int,
    limit: int,
) -> tuple[Tensor, Tensor]:
    check_devices("bpr_grow_scores", values, index=index, cols=cols, users=users, pos=pos, neg=neg)
    found = torch.library.get_ctx().new_dynamic_size()
    return users.new_empty(found), values.new_empty(found, dtype=torch.float32)
