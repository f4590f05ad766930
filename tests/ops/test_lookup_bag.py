"""lookup_bag: values, gradients, padding, bounds modes and errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DIMS, DTYPES, KINDS, dims, kinds, random_case, random_table, same_bits, seeds
from torch import Tensor
from torch.nn import functional

from recsparse import ops, reference
from recsparse.ops.lookup_bag import MODES
from recsparse.table import PackedTable


def bags_of(n: int, bags: int, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """ids [n] and ascending offsets [bags] from 0, with empty bags among them."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, max(1, rows), (n,), generator=rng)
    offsets = torch.randint(0, n + 1, (bags,), generator=rng).sort().values
    offsets[:1] = 0
    return ids, offsets


def weights_of(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed + 1))


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_reference_bit_for_bit(kind: str, dim: int, mode: str, threads: int, dtype: torch.dtype) -> None:
    table = random_table(kind, 61, dim, seed=dim, slack=3, dtype=dtype)
    ids, offsets = bags_of(300, 40, 61, dim)
    for padding in (-1, 5):
        arguments = (table.index, table.cols, table.values, ids, offsets, None, *table.layout, MODES[mode])
        want = reference.lookup_bag(*arguments, padding=padding)
        got = ops.lookup_bag(table, ids, offsets, mode=mode, padding_idx=None if padding < 0 else padding)
        assert same_bits(got, want)


@given(kinds, dims, st.integers(1, 100), st.integers(0, 200), st.integers(1, 60), st.booleans(), st.booleans(), seeds)
def test_equals_embedding_bag(
    kind: str, dim: int, rows: int, n: int, bags: int, mean: bool, last: bool, seed: int
) -> None:
    dense, mask = random_case(kind, rows, dim, seed=seed)
    table = PackedTable.from_dense(dense, mask, kind=kind)
    ids, offsets = bags_of(n, bags, rows, seed)
    if last:
        offsets = torch.cat([offsets, torch.tensor([n])])
    weights = None if mean else weights_of(n, seed)
    mode, padding = "mean" if mean else "sum", seed % rows
    options = {"mode": mode, "per_sample_weights": weights, "include_last_offset": last, "padding_idx": padding}
    want = functional.embedding_bag(ids, dense, offsets, **options)
    torch.testing.assert_close(ops.lookup_bag(table, ids, offsets, **options), want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [7, 64, 100, 128])
def test_large_tables_and_outputs(kind: str, dim: int, threads: int) -> None:
    """Above 2 MB the output of some widths is written past the caches, above 16 MB the table counts as far."""
    rows = 20 * 2**20 // (4 * dim)
    table = random_table(kind, rows, dim, density=1.0)
    ids, offsets = bags_of(30_000, 9_000, rows)
    want = functional.embedding_bag(ids, table.to_dense(), offsets, mode="sum")
    torch.testing.assert_close(ops.lookup_bag(table, ids, offsets), want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["bits", "cols8"])
def test_bags_of_one_in_a_far_sparse_table(kind: str, threads: int) -> None:
    table = PackedTable.init(1_000_000, 64, kind=kind, capacity=6_400_000, seed=3)
    ids = torch.randint(0, 1_000_000, (20_000,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(ops.lookup_bag(table, ids, torch.arange(20_000)), ops.lookup(table, ids))


def test_no_bags_no_ids_and_empty_bags() -> None:
    table, none = random_table("bits", 10, 33), torch.empty(0, dtype=torch.int64)
    assert ops.lookup_bag(table, none, none).shape == (0, 33)
    assert ops.lookup_bag(table, none, torch.zeros(1, dtype=torch.int64), include_last_offset=True).shape == (0, 33)
    for mode in MODES:
        assert torch.equal(
            ops.lookup_bag(table, none, torch.zeros(3, dtype=torch.int64), mode=mode), torch.zeros(3, 33)
        )
    table.values.requires_grad_()
    ops.lookup_bag(table, none, torch.zeros(3, dtype=torch.int64)).sum().backward()
    assert not table.values.grad.any()


def test_a_bag_of_padding_alone_is_zero_and_gets_no_gradient() -> None:
    table = random_table("bits", 10, 33)
    table.values.requires_grad_()
    for mode in MODES:
        bags = ops.lookup_bag(table, torch.tensor([4, 4, 1]), torch.tensor([0, 2]), mode=mode, padding_idx=4)
        assert same_bits(bags, torch.stack([torch.zeros(33), table.to_dense().detach()[1]]))
        bags.sum().backward()
    want = torch.zeros(10, 33)
    want[1] = 2
    assert torch.equal(table.values.grad, want[table.mask()])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("mode", ["sum", "mean", "weighted"])
def test_gradients_equal_those_of_embedding_bag(kind: str, dim: int, mode: str, threads: int) -> None:
    table = random_table(kind, 40, dim, seed=dim, slack=4)
    ids, offsets = bags_of(2_500, 300, 40, dim)
    weights = weights_of(2_500).requires_grad_() if mode == "weighted" else None
    options = {"mode": "sum" if mode == "weighted" else mode, "padding_idx": 7, "per_sample_weights": weights}
    dense = table.to_dense().requires_grad_()
    grad = torch.randn(300, dim, generator=torch.Generator().manual_seed(1))
    functional.embedding_bag(ids, dense, offsets, **options).backward(grad)
    want_weights = None if weights is None else weights.grad.clone()
    if weights is not None:
        weights.grad = None
    table.values.requires_grad_()
    ops.lookup_bag(table, ids, offsets, **options).backward(grad)
    torch.testing.assert_close(table.values.grad[: table.nnz], dense.grad[table.mask()], rtol=1e-4, atol=1e-4)
    assert not table.values.grad[table.nnz :].any()
    if weights is not None:
        torch.testing.assert_close(weights.grad, want_weights, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_sum_in_ascending_position(kind: str, threads: int) -> None:
    """Three hot rows and many cold ones: the sum of a row runs over its occurrences in order, whoever computes it."""
    table = random_table(kind, 300, 33, slack=4)
    ids, offsets = bags_of(6_000, 700, 300)
    ids = torch.where(torch.rand(6_000, generator=torch.Generator().manual_seed(0)) < 0.5, 7, ids)
    table.values.requires_grad_()
    grad = torch.randn(700, 33, generator=torch.Generator().manual_seed(1))
    ops.lookup_bag(table, ids, offsets).backward(grad)
    want = torch.zeros(300, 33)
    bag_of = torch.searchsorted(offsets, torch.arange(6_000), right=True) - 1
    for row, bag in zip(ids.tolist(), bag_of.tolist(), strict=True):
        want[row] += grad[bag]
    assert same_bits(table.values.grad[: table.nnz], want[table.mask()])


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    table = random_table("bits", 3_000, 64, density=0.1)
    ids, offsets = bags_of(40_000, 1_500, 3_000)
    weights = weights_of(40_000).requires_grad_()
    table.values.requires_grad_()
    grad = torch.randn(1_500, 64, generator=torch.Generator().manual_seed(1))
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        table.values.grad = weights.grad = None
        bags = ops.lookup_bag(table, ids, offsets, per_sample_weights=weights)
        bags.backward(grad)
        found.append((bags, table.values.grad, weights.grad))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(same_bits(a, b) for a, b in zip(found[0], other, strict=True))


def test_bad_ids_read_row_0_and_its_gradient_is_theirs() -> None:
    table = random_table("bits", 10, 33)
    table.values.requires_grad_()
    ids, offsets = torch.tensor([4, -1, 10, 2**40]), torch.tensor([0, 1])
    with pytest.raises(IndexError) as caught:
        ops.lookup_bag(table, ids, offsets)
    expected = "lookup_bag: ids[1] = -1 is out of range, expected 0..9 (3 of 4 ids are)"
    assert str(caught.value).splitlines()[0] == expected
    bags = ops.lookup_bag(table, ids, offsets, bounds="ignore")
    dense = table.to_dense().detach()
    torch.testing.assert_close(bags, torch.stack([dense[4], 3 * dense[0]]))
    bags.sum().backward()
    want = torch.zeros(10, 33)
    want[4], want[0] = 1, 3
    assert torch.equal(table.values.grad, want[table.mask()])


def test_the_warning_of_bad_ids(capfd: pytest.CaptureFixture[str]) -> None:
    ops.lookup_bag(random_table("bits", 10, 33), torch.tensor([4, 11]), torch.tensor([0]), bounds="warning")
    message = "lookup_bag: 1 of 2 ids are out of range 0..9, first ids[1] = 11; row 0 was read instead"
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ids": torch.zeros(3)}, TypeError, "ids has dtype Float, expected Long"),
        ({"offsets": torch.zeros(2)}, TypeError, "offsets has dtype Float, expected Long"),
        ({"offsets": torch.tensor([1, 2])}, ValueError, "offsets[0] is 1, expected 0"),
        ({"offsets": torch.tensor([0, 3, 2])}, ValueError, "offsets[2] = 2 follows 3, expected ascending offsets"),
        ({"offsets": torch.tensor([0, 4])}, ValueError, "offsets[1] = 4 is beyond the 3 ids"),
        ({"offsets": torch.empty(0, dtype=torch.int64)}, ValueError, "3 ids, but no bag"),
        ({"include_last_offset": True}, ValueError, "the last offset is 2, expected the number of ids, 3"),
        ({"mode": "max"}, ValueError, "mode is 'max', expected one of sum, mean"),
        ({"bounds": "strict"}, ValueError, "bounds is 'strict', expected one of fatal, warning, ignore"),
        ({"padding_idx": 10}, ValueError, "padding row is 10, expected -1 (none) or 0..9"),
        ({"per_sample_weights": torch.zeros(2)}, ValueError, "per_sample_weights has 2 entries, expected 3 as ids"),
        ({"per_sample_weights": torch.zeros(3).double()}, TypeError, "per_sample_weights has dtype Double"),
        ({"per_sample_weights": torch.zeros(3), "mode": "mean"}, ValueError, "per_sample_weights need mode sum"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {"ids": torch.zeros(3, dtype=torch.int64), "offsets": torch.tensor([0, 2])}
    with pytest.raises(error) as caught:
        ops.lookup_bag(random_table("bits", 10, 33), **{**arguments, **change})
    assert message in str(caught.value)
    assert len(str(caught.value).strip().splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["sum", "mean", "weighted"])
def test_gradcheck(kind: str, mode: str) -> None:
    table = random_table(kind, 6, 33, slack=2)
    values = table.values.double().requires_grad_()
    ids, offsets = torch.tensor([5, 0, 5, 2, 1]), torch.tensor([0, 3, 3])
    weights = weights_of(5).double().requires_grad_() if mode == "weighted" else None

    def bags(values: Tensor, weights: Tensor | None) -> Tensor:
        rest = (1 if mode == "mean" else 0, False, 1)
        return torch.ops.recsparse.lookup_bag(
            table.index, table.cols, values, ids, offsets, weights, *table.layout, *rest
        )

    torch.autograd.gradcheck(bags, (values, weights))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(kind: str, weighted: bool, dtype: torch.dtype) -> None:
    table = random_table(kind, 40, 33, slack=2, dtype=dtype)
    ids, offsets = bags_of(30, 8, 40)
    weights = weights_of(30).to(dtype).requires_grad_() if weighted else None
    table.values.requires_grad_()
    arguments = (table.index, table.cols, table.values, ids, offsets, weights, *table.layout, 0, False, 3)
    torch.library.opcheck(torch.ops.recsparse.lookup_bag.default, arguments)
    grad = torch.randn(8, 33).to(dtype)
    fixed = None if weights is None else weights.detach()
    arguments = (grad, table.index, table.cols, ids, offsets, fixed, *table.layout, 0, False, 3, table.capacity)
    torch.library.opcheck(torch.ops.recsparse.lookup_bag_backward, arguments)
    values = table.values.detach()
    arguments = (grad, table.index, table.cols, values, ids, offsets, *table.layout, False, 3)
    torch.library.opcheck(torch.ops.recsparse.lookup_bag_weights_backward, arguments)


def test_the_reference_backend() -> None:
    table = random_table("bits", 10, 33, backend="reference")
    ids, offsets = bags_of(30, 8, 10)
    weights = weights_of(30)
    want = functional.embedding_bag(ids, table.to_dense(), offsets, mode="sum", per_sample_weights=weights)
    got = ops.lookup_bag(table, ids, offsets, per_sample_weights=weights)
    torch.testing.assert_close(got, want)


def test_sort_keys_that_do_not_fit_are_refused() -> None:
    """A row takes 40 bits and a position 25 here. The table is of kind `full` with stride 0: nothing of it exists."""
    rows, count = 2**40 - 1, 2**24 + 1
    ids = torch.zeros(1, dtype=torch.int64).expand(count).contiguous()
    index, cols = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.uint8)
    grad = torch.zeros(count, 1)
    message = "16777217 ids are too many for a table of 1099511627775 rows"
    with pytest.raises(ValueError, match=message):
        torch.ops.recsparse.lookup_backward(grad, index, cols, ids, 0, rows, 1, -1, rows)
    offsets = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        torch.ops.recsparse.lookup_bag_backward(
            grad[:1], index, cols, ids, offsets, None, 0, rows, 1, 0, False, -1, rows
        )


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["sum", "mean", "weighted"])
def test_gradients_of_16_bit_values_are_those_of_float32_rounded_once(kind: str, mode: str, dtype: torch.dtype) -> None:
    small = random_table(kind, 61, 100, slack=3, dtype=dtype)
    wide = PackedTable(61, 100, kind, small.index, small.cols, small.values.float())
    ids, offsets = bags_of(300, 40, 61)
    weights = weights_of(300).to(dtype) if mode == "weighted" else None
    upstream = torch.randn(40, 100, generator=torch.Generator().manual_seed(3)).to(dtype)
    results = []
    for table in (small, wide):
        values = table.values.detach().requires_grad_()
        factors = None if weights is None else weights.to(table.dtype).clone().requires_grad_()
        table.values = values
        options = {"mode": "mean" if mode == "mean" else "sum", "per_sample_weights": factors}
        rows = ops.lookup_bag(table, ids, offsets, **options)
        rows.backward(upstream.to(table.dtype))
        results.append([rows.detach(), values.grad, *([] if factors is None else [factors.grad])])
    for got, exact in zip(*results, strict=True):
        assert got is not None
        assert exact is not None
        assert same_bits(got, exact.to(dtype))
