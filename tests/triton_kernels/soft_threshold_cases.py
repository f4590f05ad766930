"""soft_threshold in Triton against the native op."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from triton_tables import DEVICE, on_device

from recsparse import ops

GRANULARITIES = {"global": (False, False), "dim": (False, True), "row": (True, False), "element": (True, True)}


def case(granularity: str, rows: int, dim: int, n: int | None) -> tuple[Tensor, Tensor, Tensor | None]:
    rng = torch.Generator().manual_seed(dim)
    by_row, by_column = GRANULARITIES[granularity]
    thresholds = torch.randn(rows if by_row else 1, dim if by_column else 1, generator=rng)
    ids = None if n is None else torch.randint(0, rows, (n,), generator=rng)
    return torch.randn(rows, dim, generator=rng), thresholds, ids


@pytest.mark.parametrize("n", [None, 0, 300])
@pytest.mark.parametrize("dim", [1, 33, 64, 256])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_equals_the_native_op(granularity: str, dim: int, n: int | None) -> None:
    values, thresholds, ids = case(granularity, 45, dim, n)
    moved = (*on_device(values, thresholds), None if ids is None else ids.to(DEVICE))
    out, want = ops.soft_threshold(*moved, backend="triton"), ops.soft_threshold(values, thresholds, ids)
    torch.testing.assert_close(out.cpu(), want, rtol=1e-5, atol=1e-6)
    grad = torch.randn(want.shape, generator=torch.Generator().manual_seed(1))
    found = ops.soft_threshold_backward(grad.to(DEVICE), *moved, backend="triton")
    wanted = ops.soft_threshold_backward(grad, values, thresholds, ids)
    for mine, other in zip(found, wanted, strict=True):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine.cpu(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("n", [None, 60])
def test_gradients(granularity: str, n: int | None) -> None:
    values, thresholds, ids = case(granularity, 20, 33, n)
    weight = torch.randn(20 if n is None else n, 33, generator=torch.Generator().manual_seed(1))
    found = []
    for backend, device in (("triton", DEVICE), ("cpu", "cpu")):
        leaves = [each.to(device, copy=True).requires_grad_() for each in (values, thresholds)]
        out = ops.soft_threshold(*leaves, None if ids is None else ids.to(device), backend=backend)
        (out * weight.to(device)).sum().backward()
        found.append([leaf.grad.cpu() for leaf in leaves if leaf.grad is not None])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_nan_is_not_hidden_and_ids_are_checked() -> None:
    values, s = on_device(torch.tensor([[float("nan"), 1.0]]), torch.zeros(1, 1))
    assert torch.isnan(ops.soft_threshold(values, s, backend="triton")).tolist() == [[True, False]]
    if DEVICE.type == "cpu":
        with pytest.raises(IndexError, match=r"ids\[0\] = 1 is out of range"):
            ops.soft_threshold(values, s, torch.tensor([1]), backend="triton")
