"""sample_synthetic in Triton: the same draws as the native op."""

from __future__ import annotations

import pytest
import torch
from triton_tables import DEVICE

from recsparse.ops import sample_synthetic


@pytest.mark.parametrize(
    ("n_users", "n_items", "low", "high", "count"),
    [
        (2**40, 5000, 1, 60, 150),  # users beyond 32 bits
        (50, 300, 2, 20, 70),  # some negatives are hit, and drawn again
        (7, 40, 39, 39, 40),  # nearly all are: the next free item is searched for
        (1, 2, 1, 1, 9),
        (10**6, 2**31 - 1, 1, 9, 20),
        (1000, 1025, 900, 1024, 10),
    ],
)
def test_equals_the_native_op(n_users: int, n_items: int, low: int, high: int, count: int) -> None:
    for seed, start in ((0, 0), (2**63 - 1, 2**40 + 5)):
        options = {"min_degree": low, "max_degree": high, "seed": seed, "start": start, "count": count}
        found = sample_synthetic(n_users, n_items, **options, backend="triton", device=DEVICE)
        want = sample_synthetic(n_users, n_items, **options)
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, want, strict=True))


def test_the_stream_is_cut_anywhere() -> None:
    options = {"min_degree": 1, "max_degree": 30, "seed": 3, "backend": "triton", "device": DEVICE}
    whole = sample_synthetic(1000, 700, **options, start=100, count=90)
    parts = [sample_synthetic(1000, 700, **options, start=100 + b, count=n) for b, n in ((0, 7), (7, 0), (7, 83))]
    assert all(
        torch.equal(torch.cat(part), tensor) for part, tensor in zip(zip(*parts, strict=True), whole, strict=True)
    )


def test_wrong_arguments_are_named() -> None:
    options = {"seed": 0, "start": 0, "count": 4, "backend": "triton", "device": DEVICE}
    for sizes, low, high, message in (
        ((10, 10), 1, 10, "degrees: expected 1 <= min <= max <= 9, got 1 and 10"),
        ((10, 5000), 1, 1025, "degrees: expected 1 <= min <= max <= 1024"),
        ((0, 10), 1, 2, "n_users: expected at least 1, got 0"),
        ((10, 2**31), 1, 2, "n_items: expected 2"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_synthetic(*sizes, min_degree=low, max_degree=high, **options)
    with pytest.raises(ValueError, match="start and count must not be negative, got -1 and 4"):
        sample_synthetic(10, 10, min_degree=1, max_degree=2, **{**options, "start": -1})
