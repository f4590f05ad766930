"""Reference of `lookup_bag`: unpack everything, then one bag at a time."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from recsparse.reference.lookup import lookup


def lookup_bag(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    ids: Tensor,
    offsets: Tensor,
    per_sample_weights: Tensor | None,
    kind: int,
    rows: int,
    dim: int,
    mode: int = 0,
    include_last_offset: bool = False,
    padding: int = -1,
    bounds: int = 0,
) -> Tensor:
    """[bags, dim] of the values' dtype; see `recsparse.ops.lookup_bag`."""
    wide = values.float() if values.dtype.itemsize == 2 else values
    found = lookup(index, cols, wide, ids, kind, rows, dim, bounds)
    counts = torch.where((ids < 0) | (ids >= rows), 0, ids) != padding
    if per_sample_weights is not None:
        found = found * per_sample_weights[:, None]
    ends = offsets.tolist() if include_last_offset else [*offsets.tolist(), len(ids)]
    bags = []
    for begin, end in itertools.pairwise(ends):
        bag = found[begin:end][counts[begin:end]]
        total = torch.zeros(dim, dtype=wide.dtype)
        for row in bag:
            total = total + row
        bags.append(total / len(bag) if mode == 1 and len(bag) else total)
    return (torch.stack(bags) if bags else found.new_zeros(0, dim)).to(values.dtype)
