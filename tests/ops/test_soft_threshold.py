"""soft_threshold: against the reference, its gradients, and what must not change."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DIMS, dims, same_bits, seeds
from torch import Tensor

from recsparse import ops, reference

ROWS = 61
GRANULARITIES = ["global", "dim", "row", "element"]


def shape_of(granularity: str, rows: int, dim: int) -> tuple[int, int]:
    return rows if granularity in ("row", "element") else 1, dim if granularity in ("dim", "element") else 1


def case(granularity: str, rows: int, dim: int, n: int | None, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    """Values of both signs, thresholds around their size so that about half of them live, and ids with duplicates."""
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, dim, generator=rng)
    thresholds = torch.randn(shape_of(granularity, rows, dim), generator=rng)
    return values, thresholds, None if n is None else torch.randint(0, rows, (n,), generator=rng)


@pytest.mark.parametrize("n", [None, 0, 1, 700])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("dim", DIMS)
def test_equals_the_reference(granularity: str, dim: int, n: int | None, threads: int) -> None:
    values, thresholds, ids = case(granularity, ROWS, dim, n, dim)
    out = ops.soft_threshold(values, thresholds, ids)
    torch.testing.assert_close(out, reference.soft_threshold(values, thresholds, ids), rtol=1e-5, atol=1e-6)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    got = ops.soft_threshold_backward(grad, values, thresholds, ids)
    want = reference.soft_threshold_backward(grad, values, thresholds, ids)
    assert [part.shape for part in got] == [part.shape for part in want]
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    # Which entries live is one decision, in both directions.
    assert same_bits(got[0], torch.where(out != 0, grad, torch.zeros(())))


@given(st.sampled_from(GRANULARITIES), dims, st.integers(1, 300), st.integers(0, 900), seeds)
def test_any_case(granularity: str, dim: int, rows: int, n: int, seed: int) -> None:
    values, thresholds, ids = case(granularity, rows, dim, n, seed)
    out = ops.soft_threshold(values, thresholds, ids)
    torch.testing.assert_close(out, reference.soft_threshold(values, thresholds, ids), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("ids", [None, torch.tensor([3, 0, 3, 2, 3])])
def test_gradients(granularity: str, ids: Tensor | None) -> None:
    """The reference by gradcheck in double precision; the op equals it."""
    values, thresholds, _ = case(granularity, 5, 7, None)
    leaves = [values.double().requires_grad_(), thresholds.double().requires_grad_()]
    assert torch.autograd.gradcheck(lambda v, s: reference.soft_threshold(v, s, ids), leaves)
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(2))
    (reference.soft_threshold(*leaves, ids) * weight).sum().backward()
    own = [values.requires_grad_(), thresholds.requires_grad_()]
    (ops.soft_threshold(values, thresholds, ids) * weight).sum().backward()
    for mine, other in zip(own, leaves, strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(mine.grad, other.grad.float(), rtol=1e-5, atol=1e-6)


def test_thresholds_at_the_ends() -> None:
    """sigmoid(-150) is as good as 0 and sigmoid(150) is 1, without NaN; -0.0 and 0.0 are dead."""
    values = torch.tensor([[0.5, -0.5, 0.0, -0.0, 1e-30, 3.0, -3.0]])
    low, high = (torch.full((1, 1), s) for s in (-150.0, 150.0))
    assert torch.equal(ops.soft_threshold(values, low), values)
    assert torch.equal(ops.soft_threshold(values, high), torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 2.0, -2.0]]))
    of_values, of_s = ops.soft_threshold_backward(torch.ones(1, 7), values, high)
    assert torch.equal(of_values, torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]))
    assert float(of_s) == 0.0


def test_nan_is_not_hidden() -> None:
    values = torch.tensor([[float("nan"), 1.0]])
    assert torch.isnan(ops.soft_threshold(values, torch.zeros(1, 1))).tolist() == [[True, False]]
    assert torch.isnan(ops.soft_threshold(torch.ones(1, 2), torch.tensor([[float("nan"), 0.0]]))).tolist() == [
        [True, False]
    ]


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_same_bits_for_any_number_of_threads_and_run(granularity: str) -> None:
    values, thresholds, ids = case(granularity, 3_000, 48, 5_000)
    grad = torch.randn(5_000, 48, generator=torch.Generator().manual_seed(1))
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        found.append(
            (ops.soft_threshold(values, thresholds, ids), *ops.soft_threshold_backward(grad, values, thresholds, ids))
        )
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(same_bits(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("n", [None, 9])
def test_opcheck(granularity: str, n: int | None) -> None:
    values, thresholds, ids = case(granularity, 12, 5, n)
    grad = torch.ones(12 if n is None else n, 5)
    torch.library.opcheck(torch.ops.recsparse.soft_threshold_backward, (grad, values, thresholds, ids))
    torch.library.opcheck(torch.ops.recsparse.soft_threshold, (values, thresholds, ids))
    leaves = (values.requires_grad_(), thresholds.requires_grad_())
    torch.library.opcheck(torch.ops.recsparse.soft_threshold, (*leaves, ids))


def test_mistakes_are_named() -> None:
    values, thresholds, ids = case("element", 6, 4, 3)
    for arguments, error, message in (
        ((values, thresholds, torch.tensor([0, 6])), IndexError, r"ids\[1\] = 6 is out of range, expected 0..5"),
        ((values, thresholds[:, :3], ids), ValueError, "thresholds is not contiguous"),
        (
            (values, thresholds[:5], ids),
            ValueError,
            r"thresholds has shape \[5, 4\], expected \[1 or 6, 1 or 4\]",
        ),
        ((values.view(-1), thresholds, ids), ValueError, r"values has shape \[24\], expected \[rows, dim\]"),
        ((values.double(), thresholds, ids), TypeError, "values has dtype Double"),
        ((values, thresholds, torch.tensor([0.5])), TypeError, "ids has dtype Float"),
    ):
        with pytest.raises(error, match=message):
            ops.soft_threshold(*arguments)
    with pytest.raises(ValueError, match=r"grad has shape \[2, 4\], expected \[3, 4\]"):
        ops.soft_threshold_backward(torch.ones(2, 4), values, thresholds, ids)


def test_sum_rows_adds_up_in_ascending_position() -> None:
    rng = torch.Generator().manual_seed(0)
    grad, ids = torch.randn(400, 9, generator=rng), torch.randint(0, 30, (400,), generator=rng)
    want = torch.zeros(30, 9).index_add_(0, ids, grad)
    assert same_bits(ops.sum_rows(grad, ids, 30), want)
