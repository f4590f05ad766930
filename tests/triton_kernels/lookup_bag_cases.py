"""lookup_bag in Triton: sums, means, weights and gradients against the native op."""

from __future__ import annotations

import pytest
import torch
from strategies import DTYPES, KINDS, random_table
from torch import Tensor
from triton_tables import DEVICE, INTERPRETED, on_device, pair

from recsparse import ops, triton_kernels
from recsparse.table import PackedTable

ROWS = 31
OFFSETS = torch.tensor([0, 3, 3, 20, 21])  # an empty bag, a long one, one of a single row


def run(table: PackedTable, ids: Tensor, offsets: Tensor, weights: Tensor | None, **options: object) -> list[Tensor]:
    """(bags, gradient of the values, gradient of the weights) on the CPU."""
    device = table.values.device
    table.values.requires_grad_()
    own = None if weights is None else weights.to(device, table.dtype).detach().requires_grad_()
    bags = ops.lookup_bag(table, ids.to(device), offsets.to(device), per_sample_weights=own, **options)
    upstream = torch.linspace(-1, 1, bags.numel(), device=device).view_as(bags).to(bags.dtype)
    bags.backward(upstream)
    return [x.cpu() for x in (bags.detach(), table.values.grad, *([] if own is None else [own.grad]))]


def assert_close(kind: str, dim: int, ids: Tensor, weighted: bool, *, dtype: torch.dtype = torch.float32,
                 offsets: Tensor = OFFSETS, **options: object) -> None:  # fmt: skip
    tables = pair(kind, ROWS, dim, seed=dim, slack=2, dtype=dtype)
    weights = torch.linspace(-1, 1, len(ids)) if weighted else None
    rtol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    for found, want in zip(*(run(table, ids, offsets, weights, **options) for table in reversed(tables)), strict=True):
        torch.testing.assert_close(found, want, rtol=rtol, atol=rtol)


def ids_of(n: int) -> Tensor:
    return torch.randint(0, ROWS, (n,), generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 64, 256])
@pytest.mark.parametrize(("mode", "weighted"), [("sum", False), ("sum", True), ("mean", False)])
def test_equals_the_native_op(kind: str, dim: int, mode: str, weighted: bool) -> None:
    assert_close(kind, dim, ids_of(30), weighted, mode=mode, padding_idx=7)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_16_bit_values(dtype: torch.dtype) -> None:
    assert_close("bits", 33, ids_of(30), True, dtype=dtype)


def test_a_row_that_occurs_very_often() -> None:
    ids = torch.cat([ids_of(20), torch.full((80,), 5)])
    assert_close("bits", 33, ids, True)
    assert_close("bits", 33, ids, False, mode="mean", padding_idx=5)


def test_last_offset_given_no_bags_and_no_ids() -> None:
    assert_close("bits", 33, ids_of(30), False, offsets=torch.tensor([0, 10, 30]), include_last_offset=True)
    none = torch.empty(0, dtype=torch.int64)
    assert_close("bits", 33, none, True, offsets=torch.zeros(3, dtype=torch.int64))
    assert_close("bits", 33, none, False, offsets=none)


def test_bad_ids_read_row_0() -> None:
    ids = ids_of(30)
    ids[[3, 17]] = torch.tensor([-1, 2**40])
    assert_close("bits", 33, ids, False, bounds="ignore")
    if INTERPRETED:
        with pytest.raises(IndexError, match=r"lookup_bag: ids\[3\] = -1 is out of range, expected 0\.\.30"):
            ops.lookup_bag(pair("bits", ROWS, 33)[1], ids, OFFSETS)


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU wrong offsets are a device-side assertion")
@pytest.mark.parametrize(
    ("offsets", "last", "message"),
    [
        ([1, 3], False, r"offsets\[0\] is 1, expected 0"),
        ([0, 3, 2], False, r"offsets\[2\] = 2 follows 3, expected ascending offsets"),
        ([0, 31], False, r"offsets\[1\] = 31 is beyond the 30 ids"),
        ([0, 29], True, "the last offset is 29, expected the number of ids, 30"),
        ([], False, "30 ids, but no bag"),
        ([], True, "offsets is empty, expected at least the last offset"),
    ],
)
def test_wrong_offsets_are_named(offsets: list[int], last: bool, message: str) -> None:
    table = pair("bits", ROWS, 33)[1]
    with pytest.raises(ValueError, match=f"lookup_bag: {message}"):
        ops.lookup_bag(table, ids_of(30), torch.tensor(offsets, dtype=torch.int64), include_last_offset=last)


@pytest.mark.parametrize("mode", [0, 1])
def test_gradcheck(mode: int) -> None:
    table = random_table("bits", 4, 5, slack=2)
    values = on_device(table.values.double()).requires_grad_()
    weights = None if mode else torch.linspace(0.5, 2, 5, dtype=torch.float64, device=DEVICE).requires_grad_()
    index, cols, ids, offsets = on_device(
        table.index, table.cols, torch.tensor([3, 0, 3, 2, 1]), torch.tensor([0, 1, 4])
    )

    def bags(values: Tensor, *weights: Tensor) -> Tensor:
        given = weights[0] if weights else None
        return triton_kernels.lookup_bag(index, cols, values, ids, offsets, given, *table.layout, mode)

    torch.autograd.gradcheck(bags, (values,) if weights is None else (values, weights))
