"""prune_regrow_: change which weights of a packed table are kept, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native
from recsparse.ops._backend import implementation

if TYPE_CHECKING:
    from recsparse.table import PackedTable

_native.load()


def prune_regrow_(
    table: PackedTable, state: Tensor | None, keys: Tensor, scores: Tensor, *, drop: int, grow: int
) -> tuple[int, int]:
    """Drop the smallest weights, grow the best candidates, and rebuild the table in place.

    This is one update of dynamic sparse training (SET, RigL, DSL): `grown` = min(grow, len(keys)) candidates with the
    largest scores enter with weight 0 and zero state (ties: the lower key enters), and `dropped` =
    max(0, drop - (grow - grown)) weights with the smallest magnitudes leave (ties: the higher position leaves). With
    too few candidates only as many leave as can be replaced. Candidates are slots that are not kept before the call,
    so nothing that is dropped in it comes back in it. What stays keeps its weight and state, bit for bit; everything
    behind the kept weights is zero afterwards. The same bits for any number of threads.

    Exact selection, then one pass that moves the rows slab by slab; extra memory is a few percent of the table and 4
    bytes a candidate.

    Args:
        table: of kind `bits` or `cols8`.
        state: float32 [capacity] or [2 * capacity], optimiser state in the order of the values (`weight_state` of the
            optimisers in `recsparse.optim`), or None.
        keys: int64 [c], flat keys row * dim + column of slots that are not kept, ascending.
        scores: float32 [c], finite; larger is better.
        drop: weights that should leave, 0..nnz.
        grow: weights that should enter; the number kept afterwards must not exceed the capacity.

    Returns:
        (dropped, grown).

    Raises:
        TypeError, ValueError: wrong dtype, shape or kind, bad keys or scores, a NaN among the weights, or no room;
            nothing has changed then.
    """
    rebuild = implementation(table.backend).prune_regrow_
    with torch.no_grad():
        counts = rebuild(table.index, table.cols, table.values, state, keys, scores, *table.layout, drop, grow)
    # The op writes through raw pointers: let autograd refuse graphs that saved the old values.
    torch.autograd.graph.increment_version(table.values)
    dropped, grown = counts.tolist()
    return dropped, grown


@torch.library.register_fake("recsparse::prune_regrow_")
def _(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    state: Tensor | None,
    keys: Tensor,
    scores: Tensor,
    kind: int,
    rows: int,
    dim: int,
    drop: int,
    grow: int,
) -> Tensor:
    return keys.new_empty(2)
