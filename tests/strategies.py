"""Random packed tables for the tests of the ops."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from recsparse import layout, table
from recsparse.table import PackedTable

KINDS = tuple(layout.KINDS)
DTYPES = tuple(table.DTYPES.values())
DIMS = (1, 7, 16, 33, 64, 100, 128, 160, 225, 256)

# Weights whose bits a careless copy would change: signed zeros, the smallest denormal and normal, the largest number.
ODD_WEIGHTS = (0.0, -0.0, 1.4e-45, -1.1754944e-38, 3.402823e38, -3.402823e38)


def random_mask(kind: str, rows: int, dim: int, rng: torch.Generator, density: float | None = None) -> Tensor:
    """bool [rows, dim] that `kind` can hold. Without `density` every row draws its own; some are empty, some full."""
    if kind == "full":
        return torch.ones(rows, dim, dtype=torch.bool)
    shares = torch.rand(rows, generator=rng) if density is None else torch.full((rows,), density)
    if density is None:
        shares[2::9] = 0
        shares[5::9] = 1
    if kind == "prefix":
        return torch.arange(dim) < (shares * (dim + 1)).floor().clamp(max=dim)[:, None]
    return torch.rand(rows, dim, generator=rng) < shares[:, None]


def random_case(
    kind: str,
    rows: int,
    dim: int,
    *,
    seed: int = 0,
    density: float | None = None,
    scale: float = 1.0,
    odd: bool = False,
) -> tuple[Tensor, Tensor]:
    """(dense float32 [rows, dim], mask bool [rows, dim]); `odd` mixes `ODD_WEIGHTS` in."""
    rng = torch.Generator().manual_seed(seed)
    mask = random_mask(kind, rows, dim, rng, density)
    dense = scale * torch.randn(rows, dim, generator=rng)
    if odd:
        pick = torch.randint(0, 3 * len(ODD_WEIGHTS), (rows, dim), generator=rng)
        for i, weight in enumerate(ODD_WEIGHTS):
            dense[pick == i] = weight
    return torch.where(mask, dense, 0.0), mask


def random_table(
    kind: str,
    rows: int,
    dim: int,
    *,
    seed: int = 0,
    density: float | None = None,
    scale: float = 1.0,
    slack: int = 0,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> PackedTable:
    """A packed `random_case`, with room for `slack` more weights (kind `full` has none to spare)."""
    dense, mask = random_case(kind, rows, dim, seed=seed, density=density, scale=scale)
    capacity = int(mask.sum()) + (0 if kind == "full" else slack)
    return PackedTable.from_dense(dense, mask, kind=kind, capacity=capacity, dtype=dtype, backend=backend)


def random_triples(
    n: int, users: int, items: int, *, seed: int = 0, hot: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """int64 (users, pos, neg) [n]; with `hot` the ids come from the first `hot` users and items only."""
    rng = torch.Generator().manual_seed(seed)
    users, items = min(users, hot or users), min(items, hot or items)
    return tuple(torch.randint(0, limit, (n,), generator=rng) for limit in (users, items, items))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit: tells -0.0 from 0.0, and a NaN equals itself."""
    bits = {
        torch.float32: torch.int32,
        torch.float64: torch.int64,
        torch.float16: torch.int16,
        torch.bfloat16: torch.int16,
    }
    return a.dtype == b.dtype and torch.equal(*(x.detach().view(bits.get(x.dtype, x.dtype)) for x in (a, b)))


kinds = st.sampled_from(KINDS)
dtypes = st.sampled_from(DTYPES)
dims = st.sampled_from(DIMS)
row_numbers = st.integers(0, 150)
seeds = st.integers(0, 2**31 - 1)
