"""select in Triton: exact, whatever the sample says; bit-equal to the native op."""

from __future__ import annotations

import pytest
import torch
from strategies import DTYPES
from torch import Tensor
from triton_tables import on_device, select

from recsparse import ops


def assert_same(values: Tensor) -> None:
    n = len(values)
    for k in sorted({0, 1, n // 10, n // 2, n - 1, n}):
        assert ops.select(on_device(values), k, backend="triton") == ops.select(values, k), (n, k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sample", [64, 1 << 18], ids=["small sample", "usual sample"])
def test_equals_the_native_op(sample: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distinct values, many ties, all equal, infinities and signed zeros."""
    monkeypatch.setattr(select, "SAMPLE", sample)
    rng = torch.Generator().manual_seed(0)
    assert_same(torch.randn(9_000, generator=rng).to(dtype))
    assert_same(torch.randn(5_000, generator=rng).mul(3).round().to(dtype))
    assert_same(torch.zeros(100, dtype=dtype))
    assert_same(torch.tensor([1.0, float("inf"), -float("inf"), 0.0, -0.0], dtype=dtype))


@pytest.mark.parametrize(
    "bracket", [(2**31 - 2, 2**31 - 1), (-1, 0), (-1, 2**31 - 1)], ids=["above", "below", "everything"]
)
def test_a_bracket_that_misses_or_overflows_costs_time_only(
    bracket: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All values are counted then."""
    values = torch.randn(9_000, generator=torch.Generator().manual_seed(1))
    own = on_device(torch.tensor(bracket, dtype=torch.int32))
    monkeypatch.setattr(select, "_bracket", lambda bits, k, mask: own)
    monkeypatch.setattr(select, "ROOM_SHARE", 10**9)  # room for one block only
    assert_same(values)


def test_nothing_to_select_from_and_impossible_k() -> None:
    assert ops.select(on_device(torch.empty(0)), 0, backend="triton") == (float("inf"), 0)
    for k in (-1, 4):
        with pytest.raises(ValueError, match=rf"select: k = {k}, expected 0 <= k <= 3 \(the number of values\)"):
            ops.select(on_device(torch.zeros(3)), k, backend="triton")
    with pytest.raises(TypeError, match="select: values has dtype"):
        ops.select(on_device(torch.zeros(3).double()), 1, backend="triton")


def test_nan_is_named() -> None:
    values = torch.zeros(9_000)
    values[[7, 8_000]] = float("nan")
    if on_device(values).is_cuda:
        pytest.skip("on a GPU a NaN is a device-side assertion, which ends the process")
    with pytest.raises(ValueError, match="select: 2 of 9000 values are NaN, the first at position 7; expected numbers"):
        ops.select(values, 5, backend="triton")
