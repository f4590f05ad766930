"""Training triples (user, positive, negative) by counter-based random numbers.

Draw number n is a pure function of (seed, n): any cut of the draws, thread count and backend gives the same triples,
and nothing has to be stored to resume. Negatives are true negatives, chosen without rejection by rank among the items
that the user does not have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import _native
from recsparse.backend import resolve_backend
from recsparse.errors import UserError
from recsparse.ops._backend import implementation

MODES = {"users": 0, "interactions": 1}
Triples = tuple[Tensor, Tensor, Tensor]

_native.load()


def sample(
    indptr: Tensor,
    items: Tensor,
    users: Tensor,
    n_items: int,
    *,
    seed: int,
    start: int,
    count: int,
    mode: str = "users",
    backend: str = "auto",
) -> Triples:
    """Draw triples number `start .. start + count` of a CSR matrix of positives.

    Args:
        indptr: int64 [rows + 1], from 0 to len(items).
        items: int32 [nnz], ascending and unique in each row (not checked here: `recsparse.data.Dataset` does), each
            row with at least one and at most n_items - 1 of them.
        users: int64 [rows], the user id of each row.
        n_items: negatives come from [0, n_items), below 2^31.
        seed: in [0, 2^63).
        mode: `users`: a uniform row with replacement, then a uniform item of it. `interactions`: draw n is position
            n mod nnz of a permutation keyed by (seed, n // nnz), so each positive comes once in nnz draws.
        backend: see `recsparse.backend.resolve_backend`.

    Returns:
        (users, pos, neg), int64 [count] each.

    Raises:
        ValueError, TypeError: wrong shape, dtype, device or range, or a row without a positive or a negative.
        UserError: unknown mode, negative seed. BackendError: a backend that cannot serve.

    Source: `users` is the sampler of the LightGCN and DSL code; `interactions` is the usual shuffled epoch.
    """
    if mode not in MODES:
        raise UserError(f"unknown sampling mode {mode!r}; expected one of {', '.join(MODES)}")
    _check_seed(seed)
    op = implementation(resolve_backend(backend, indptr.device.type)).sample
    out: Triples = op(indptr, items, users, n_items, seed, start, count, MODES[mode])
    return out


def sample_synthetic(
    n_users: int,
    n_items: int,
    *,
    min_degree: int,
    max_degree: int,
    seed: int,
    start: int,
    count: int,
    backend: str = "auto",
    device: str | torch.device = "cpu",
) -> Triples:
    """Draw triples of the generated stream (`csrc/core/synthetic.h`); no array of interactions exists anywhere.

    Args:
        n_users, n_items: sizes; n_items below 2^31.
        min_degree, max_degree: interactions of a user, power-law between the two; max_degree < n_items and <= 1024.
        seed, start, count, backend: as for `sample`.
        device: where the triples are drawn.

    Returns:
        (users, pos, neg), int64 [count] each: a uniform user, one of its interactions (an item that comes twice in the
        stream counts twice), and an item that is none of its interactions.

    Raises:
        ValueError: a size, degree or range out of bounds. UserError: negative seed. BackendError: a backend that cannot
            serve.
    """
    _check_seed(seed)
    arguments = (n_users, n_items, min_degree, max_degree, seed, start, count)
    device = torch.device(device)
    chosen = resolve_backend(backend, device.type)
    if chosen != "cuda":
        where = {"device": device} if chosen == "triton" else {}
        drawn: Triples = implementation(chosen).sample_synthetic(*arguments, **where)
        return drawn
    users, pos, neg = (torch.empty(max(0, count), dtype=torch.int64, device=device) for _ in range(3))
    torch.ops.recsparse.sample_synthetic.out(*arguments, users=users, pos=pos, neg=neg)
    return users, pos, neg


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UserError(f"seed is {seed}; expected a whole number in [0, 2^63)")


@torch.library.register_fake("recsparse::sample")
def _(
    indptr: Tensor, items: Tensor, users: Tensor, n_items: int, seed: int, start: int, count: int, mode: int
) -> Triples:
    return users.new_empty(count), users.new_empty(count), users.new_empty(count)


@torch.library.register_fake("recsparse::sample_synthetic")
def _(n_users: int, n_items: int, min_degree: int, max_degree: int, seed: int, start: int, count: int) -> Triples:
    def empty() -> Tensor:
        return torch.empty(count, dtype=torch.int64)

    return empty(), empty(), empty()
