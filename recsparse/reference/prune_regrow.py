"""Reference of `prune_regrow_`: unpack to dense weights, state and mask, sort, and pack again."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse.reference.convert_index import index_of
from recsparse.reference.rows import mask_of


def prune_regrow_dense(
    dense: Tensor, mask: Tensor, keys: Tensor, scores: Tensor, drop: int, grow: int
) -> tuple[Tensor, int, int]:
    """The rule itself: (new mask bool [rows, dim], dropped, grown)."""
    kept = mask.view(-1).nonzero()[:, 0]
    grown = min(grow, len(keys))
    dropped = max(0, drop - (grow - grown))
    by_magnitude = torch.sort(dense.view(-1)[kept].abs(), descending=True, stable=True).indices
    by_score = torch.sort(scores, descending=True, stable=True).indices
    new_mask = mask.clone()
    new_mask.view(-1)[kept[by_magnitude[len(kept) - dropped :]]] = False
    new_mask.view(-1)[keys[by_score[:grown]]] = True
    return new_mask, dropped, grown


def prune_regrow_(
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
    """int64 [2], (dropped, grown); see `recsparse.ops.prune_regrow_`. Expects valid arguments."""
    mask = mask_of(index, cols, kind, rows, dim)
    dense = torch.zeros(rows, dim, dtype=values.dtype)
    dense[mask] = values[: int(mask.sum())]
    # Candidates are not kept, so dense weights and state are already zero where something grows.
    new_mask, dropped, grown = prune_regrow_dense(dense, mask, keys, scores, drop, grow)
    nnz = int(new_mask.sum())
    if state is not None and state.numel() > 0:
        per_weight = state.numel() // values.numel()
        dense_state = torch.zeros(rows, dim, per_weight)
        dense_state[mask] = state.view(-1, per_weight)[: int(mask.sum())]
        state.zero_()
        state.view(-1, per_weight)[:nnz] = dense_state[new_mask]
    values.zero_()
    values[:nnz] = dense[new_mask]
    new_index, new_cols = index_of("prune_regrow_", new_mask, kind, values.numel())
    index.copy_(new_index)
    cols.copy_(new_cols)
    return torch.tensor([dropped, grown])
