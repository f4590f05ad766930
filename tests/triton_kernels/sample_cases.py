"""sample in Triton: the same draws as the native op."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from triton_tables import INTERPRETED, on_device

from recsparse.ops import sample


def positives(rows: int, n_items: int, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """(indptr, items, users): rows of 1 .. most items."""
    rng = torch.Generator().manual_seed(rows)
    lengths = torch.randint(1, most + 1, (rows,), generator=rng)
    items = [torch.randperm(n_items, generator=rng)[:n].sort().values for n in lengths.tolist()]
    return (
        torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        torch.cat(items).int(),
        3 * torch.arange(rows),
    )


@pytest.mark.parametrize("mode", ["users", "interactions"])
@pytest.mark.parametrize(("rows", "n_items", "most", "count"), [(37, 50, 49, 300), (1, 2, 1, 9), (5, 2**31 - 1, 3, 20)])
def test_equals_the_native_op(rows: int, n_items: int, most: int, count: int, mode: str) -> None:
    """Rows with one negative; large numbers of draws; a cut that does not matter."""
    if n_items > 10**6:
        indptr, users = torch.tensor([0, 2, 3, 5, 6, 9]), torch.arange(5)
        items = torch.tensor([0, 7, 2**31 - 2, 5, 6, 2**30, 1, 2, 2**31 - 3], dtype=torch.int32)
    else:
        indptr, items, users = positives(rows, n_items, most)
    for seed, start in ((0, 0), (2**63 - 1, 2**40 + 5)):
        options = {"seed": seed, "start": start, "count": count, "mode": mode}
        want = sample(indptr, items, users, n_items, **options)
        found = sample(*on_device(indptr, items, users), n_items, **options, backend="triton")
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, want, strict=True))


def test_no_draws_and_wrong_arguments() -> None:
    indptr, items, users = on_device(*positives(4, 9, 5))
    options = {"seed": 0, "start": 0, "count": 0, "backend": "triton"}
    assert all(tensor.shape == (0,) for tensor in sample(indptr, items, users, 9, **options))
    with pytest.raises(ValueError, match=r"indptr: 5 entries are expected \(users \+ 1\), got 3"):
        sample(indptr[:3], items, users, 9, **options)
    with pytest.raises(ValueError, match="nothing to draw from"):
        sample(indptr[:1], items[:0], users[:0], 9, **{**options, "count": 1})
    if INTERPRETED:
        with pytest.raises(ValueError, match=r"row [0-3]: expected 1 \.\. n_items - 1 positives inside items"):
            sample(torch.tensor([0, 9, 3, 4, 5]), items[:5], users, 20, **{**options, "count": 40})
        with pytest.raises(ValueError, match=r"indptr: must start at 0 and end at 2"):
            sample(indptr, items[:2], users, 9, **{**options, "count": 4})
