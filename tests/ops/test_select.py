"""select against sorting, with values that hit every path: small arrays, bracket, one key, full count."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from strategies import DTYPES

from recsparse.ops.select import Selection, select
from recsparse.reference.select import kept
from recsparse.reference.select import select as reference_select

LARGE = 1 << 17  # from here on the native code samples and brackets
INF = float("inf")


def select_on(threads, values, k):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return select(values, k)
    finally:
        torch.set_num_threads(before)


def check(values, ks):
    """Equal to sorting, for one thread and for two."""
    magnitudes = values.abs().sort(descending=True).values
    for k in ks:
        threshold = magnitudes[k - 1].item() if k else INF
        expected = Selection(threshold, k - int((magnitudes > threshold).sum()))
        assert select_on(1, values, k) == expected, f"k = {k}, 1 thread"
        assert select_on(2, values, k) == expected, f"k = {k}, 2 threads"


def normal(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def spread(n):
    """Every exponent of float32, so that no bracket is narrow in bits."""
    bits = torch.randint(0, 0x7F800000, (n,), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    return bits.view(torch.float32)


def half_hidden(n):
    """The sample sees a narrow bracket in which far more keys lie than the buffer holds."""
    return torch.cat([normal(n - n // 2), 0.5 + 1e-3 * normal(n // 2, 2)])


INPUTS = {
    "normal": normal,
    "all equal": lambda n: torch.full((n,), -0.25),
    "all zero of both signs": lambda n: torch.where(normal(n) > 0, 0.0, -0.0),
    "seven values": lambda n: (normal(n) * 1.2).round(),
    "zeros and a tail": lambda n: torch.cat([torch.zeros(n // 3), normal(n - n // 3)]),
    "denormal": lambda n: normal(n) * 1e-41,
    "some infinite": lambda n: torch.where(normal(n) > 1, INF, normal(n, 1)),
    "ascending": lambda n: normal(n).sort().values,
    "descending": lambda n: normal(n).sort(descending=True).values,
    "all exponents": spread,
    "dense cluster": half_hidden,
    "columns of different scale": lambda n: normal(n) * (1 + torch.arange(n) % 64),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("n", [1, 2, 17, 4099, LARGE - 1, LARGE, LARGE + 2049])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_sorting(name, n, dtype):
    values = INPUTS[name](n).to(dtype)
    check(values, sorted({0, 1, min(n, 3), n // 10, n // 2, n - n // 3, n - 1, n}))


@settings(max_examples=100)
@given(data=st.data())
def test_equals_sorting_small(data):
    value = st.one_of(
        st.floats(width=32, allow_nan=False), st.sampled_from([0.0, -0.0, 1.0, -1.0, INF, -INF, 1e-45, -1e-45])
    )
    dtype = data.draw(st.sampled_from(DTYPES))
    values = torch.tensor(data.draw(st.lists(value, max_size=40)), dtype=torch.float32).to(dtype)
    k = data.draw(st.integers(0, len(values)))
    found = select(values, k)
    assert found == Selection(*(x.item() for x in reference_select(values, k)))
    assert int(kept(values, *found).sum()) == k


@settings(max_examples=12)
@given(levels=st.integers(1, 60000), seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_equals_sorting_with_many_ties(levels, seed, share):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-levels, levels + 1, (LARGE + seed,), generator=generator).float()
    check(values, [round(share * len(values))])


def test_values_that_the_sample_does_not_see():
    # Three large values among zeros: the sample finds only zeros, so the bracket misses.
    values = torch.zeros(4 * LARGE)
    values[[5, LARGE, 3 * LARGE]] = torch.tensor([3.0, -2.0, 1.0])
    assert select(values, 2) == (2.0, 1)
    assert select(values, 3) == (1.0, 1)
    assert select(values, 4) == (0.0, 1)


def test_boundary_beside_many_zeros():
    # As after growth: a large share of zeros, and exactly so many (or one more or less) are to go.
    values = normal(2 * LARGE)
    values[::7] = 0.0
    zeros = int((values == 0).sum())
    check(values, [len(values) - zeros + i for i in (-1, 0, 1)])


def test_reads_only_its_values():
    buffer = torch.full((LARGE + 64,), float("nan"))
    buffer[32 : 32 + LARGE] = normal(LARGE)
    assert (
        select(buffer[32 : 32 + LARGE], LARGE // 2).threshold
        == reference_select(buffer[32 : 32 + LARGE], LARGE // 2)[0]
    )


@pytest.mark.parametrize("n", [100, LARGE + 100])
@pytest.mark.parametrize("k", [0, 1, 50, 100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_refused_with_its_place(n, k, dtype):
    values = normal(n).to(dtype)
    values[[70, 90]] = float("nan")
    with pytest.raises(
        ValueError, match=rf"^select: 2 of {n} values are NaN, the first at position 70; expected numbers$"
    ):
        select(values, k)


@pytest.mark.parametrize(
    ("values", "k", "error", "message"),
    [
        (torch.zeros(4, dtype=torch.float64), 1, TypeError, "values has dtype Double, expected Float"),
        (torch.zeros(2, 2), 1, ValueError, r"values has shape \[2, 2\], expected one dimension"),
        (torch.zeros(8)[::2], 1, ValueError, "values is not contiguous"),
        (torch.zeros(4), 5, ValueError, "k = 5, expected 0 <= k <= 4"),
        (torch.zeros(4), -1, ValueError, "k = -1, expected 0 <= k <= 4"),
    ],
)
def test_bad_input(values, k, error, message):
    with pytest.raises(error, match=f"^select: {message}") as caught:
        select(values, k)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype):
    torch.library.opcheck(torch.ops.recsparse.select.default, (normal(100).to(dtype), 10))
