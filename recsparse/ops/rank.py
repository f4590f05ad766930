"""Full-catalogue ranking: for each user the k items of highest dot product, without a score matrix in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native
from recsparse.backend import resolve_backend
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices

if TYPE_CHECKING:
    from recsparse.table import PackedTable

SCREENS = {"auto": 0, "float32": 1, "int8": 2}
Lists = tuple[Tensor, Tensor]

_native.load()


def rank(
    users: Tensor, items: Tensor, indptr: Tensor, seen: Tensor, k: int, *, screen: str = "auto", backend: str = "auto"
) -> Lists:
    """The best k items of each user that it has not seen, best first; equal scores rank by lower item id.

    The score of a pair is one float32 sum in a fixed order of the backend, so the lists are the same for any number of
    threads and for both screens. Working memory on the CPU is about 128 MiB and per thread that of 128 users; on a GPU
    8 k bytes a user, or more where there are few of them.

    Args:
        users: float32 [n, d], contiguous, d up to 4096.
        items: float32 [m, d], fewer than 2^31 rows.
        indptr, seen: CSR of the items that are left out: int64 [n + 1] and int32 [nnz], ascending in each row (not
            checked here: `recsparse.data.Dataset` does).
        k: length of a list, at least 1; it may exceed m.
        screen: how blocks of scores are searched. `int8`: with the rows rounded to eight bits, at up to four times the
            speed of `float32`; whatever could enter a list by a bound on the rounding is scored in float32, so the
            lists are those of `float32`. It needs AVX-512; elsewhere, and for rows on which the bound lets too much
            through, it is `float32`. `auto`: int8. A GPU has one way to search, whatever is given.
        backend: see `recsparse.backend.resolve_backend`.

    Returns:
        (items int32 [n, k], -1 where a user has fewer than k unseen items; scores float32 [n, k], -infinity there).

    Raises:
        ValueError: a row with NaN, infinity or a norm above 1e18 (named; on a GPU by `raise_device_errors`), or a wrong
            shape, device, k or screen.
        TypeError: wrong dtype. BackendError: a backend that cannot serve.
    """
    op = implementation(resolve_backend(backend, users.device.type)).rank
    out: Lists = op(users.detach(), items.detach(), indptr, seen, k, _screen(screen))
    return out


def rank_packed(
    table: PackedTable, users: Tensor, indptr: Tensor, seen: Tensor, k: int, *, item_offset: int, screen: str = "auto"
) -> Lists:
    """`rank` straight from a packed table, which is never dense: at most about 128 MiB of its rows are, on a GPU 64 MiB
    of items and the users that are asked for.

    Args:
        table: users and items in one table, of any index kind and dtype; item i is row item_offset + i.
        users: int64 [n] row ids.
        indptr, seen, k, screen: as for `rank`.

    Returns:
        As `rank`; the scores are those of the rows widened to float32.

    Raises:
        As `rank`; IndexError: an id out of range.
    """
    op = implementation(table.backend).rank_packed
    values = table.values.detach()
    out: Lists = op(
        table.index, table.cols, values, users, indptr, seen, k, item_offset, *table.layout, _screen(screen)
    )
    return out


def _screen(name: str) -> int:
    if name not in SCREENS:
        raise ValueError(f"screen is {name!r}, expected one of {', '.join(SCREENS)}")
    return SCREENS[name]


def _lists(indptr: Tensor, k: int) -> Lists:
    shape = (indptr.shape[0] - 1, k)
    return indptr.new_empty(shape, dtype=torch.int32), indptr.new_empty(shape, dtype=torch.float32)


@torch.library.register_fake("recsparse::rank")
def _(users: Tensor, items: Tensor, indptr: Tensor, seen: Tensor, k: int, screen: int = 0) -> Lists:
    check_devices("rank", users, items=items, indptr=indptr, seen=seen)
    return _lists(indptr, k)


@torch.library.register_fake("recsparse::rank_packed")
def _(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    users: Tensor,
    indptr: Tensor,
    seen: Tensor,
    k: int,
    item_offset: int,
    kind: int,
    rows: int,
    dim: int,
    screen: int = 0,
) -> Lists:
    check_devices("rank_packed", values, index=index, cols=cols, users=users, indptr=indptr, seen=seen)
    return _lists(indptr, k)
