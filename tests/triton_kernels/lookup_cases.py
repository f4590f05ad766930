"""lookup in Triton: bit-equal to the native op; gradients of short rows of occurrences too."""

from __future__ import annotations

import pytest
import torch
from strategies import DTYPES, KINDS, random_table, same_bits
from torch import Tensor
from triton_tables import DEVICE, DIMS_OF_EVERY_BLOCK, INTERPRETED, on_device, on_triton, pair

from recsparse import ops
from recsparse.table import PackedTable


def ids_of(n: int, rows: int, seed: int = 0) -> Tensor:
    return torch.randint(0, rows, (n,), generator=torch.Generator().manual_seed(seed))


def gradients(tables: tuple[PackedTable, ...], ids: Tensor, upstream: Tensor, **options: int) -> list[Tensor]:
    """What each table's values get, on the CPU."""
    out = []
    for table in tables:
        table.values.requires_grad_()
        rows = ops.lookup(table, ids.to(table.values.device), **options)
        rows.backward(upstream.to(table.values.device, table.dtype))
        out.append(table.values.grad.cpu())
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS_OF_EVERY_BLOCK)
def test_rows_and_gradients_equal_the_native_ones_bit_for_bit(kind: str, dim: int) -> None:
    """Rows that are empty and full, ids that repeat, and a row that gets no gradient."""
    native, triton = pair(kind, 41, dim, seed=dim, slack=3)
    ids = ids_of(90, 41, dim)
    assert same_bits(ops.lookup(triton, on_device(ids)).cpu(), ops.lookup(native, ids))
    upstream = torch.randn(90, dim, generator=torch.Generator().manual_seed(dim))
    assert same_bits(*gradients((native, triton), ids, upstream, padding_idx=7))


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("dim", [7, 64])
def test_16_bit_values(dim: int, dtype: torch.dtype) -> None:
    native, triton = pair("bits", 61, dim, slack=3, dtype=dtype)
    ids = ids_of(120, 61)
    assert same_bits(ops.lookup(triton, on_device(ids)).cpu(), ops.lookup(native, ids))
    upstream = torch.randn(120, dim, generator=torch.Generator().manual_seed(3)).to(dtype)
    assert same_bits(*gradients((native, triton), ids, upstream))


@pytest.mark.parametrize("kind", KINDS)
def test_long_segments(kind: str) -> None:
    """Segments about 64 occurrences long, the limit, and a far longer one; the first may begin anywhere."""
    for first, lengths in ((0, (63, 64, 65, 300)), (35, (65, 1)), (1, (127, 128, 64))):
        native, triton = pair(kind, 41, 33, density=0.5 if kind in ("bits", "cols8") else None)
        hot = [torch.full((n,), 10 + i) for i, n in enumerate(lengths)]
        ids = torch.cat([ids_of(first, 10), *hot])
        ids = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))]
        upstream = torch.randn(len(ids), 33, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(*gradients((triton, native), ids, upstream), rtol=1e-5, atol=1e-5)


def test_gradients_have_the_same_bits_each_time() -> None:
    """Three runs, with rows that occur hundreds of times."""
    ids = torch.where(torch.rand(1_000, generator=torch.Generator().manual_seed(0)) < 0.4, 7, ids_of(1_000, 60))
    upstream = torch.randn(1_000, 33, generator=torch.Generator().manual_seed(1))
    first, *others = (gradients((on_triton(random_table("bits", 60, 33)),), ids, upstream)[0] for _ in range(3))
    assert all(same_bits(first, other) for other in others)


@pytest.mark.parametrize("kind", KINDS)
def test_no_ids_and_a_table_without_rows(kind: str) -> None:
    triton = pair(kind, 20, 33)[1]
    none = torch.empty(0, dtype=torch.int64, device=DEVICE)
    triton.values.requires_grad_()
    rows = ops.lookup(triton, none)
    assert rows.shape == (0, 33)
    rows.sum().backward()
    assert not triton.values.grad.any()
    empty = on_triton(PackedTable.from_dense(torch.empty(0, 8), kind=kind))
    assert ops.lookup(empty, none).shape == (0, 8)
    with pytest.raises(IndexError, match="lookup: ids given for a table without rows"):
        ops.lookup(empty, torch.zeros(1, dtype=torch.int64, device=DEVICE))


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU a bad id is a device-side assertion, which ends the process")
def test_fatal_names_the_id_and_its_position() -> None:
    ids = torch.arange(10).repeat(3)
    ids[17], ids[29] = 10, -1
    message = r"lookup: ids\[17\] = 10 is out of range, expected 0\.\.9 \(2 of 30 ids are\)"
    with pytest.raises(IndexError, match=message):
        ops.lookup(pair("bits", 10, 33)[1], ids)


@pytest.mark.parametrize("bad", [-1, 10, 2**31, 2**32 + 3, 2**63 - 1, -(2**63)])
def test_warning_and_ignore_read_row_0(bad: int) -> None:
    native, triton = pair("bits", 10, 33)
    ids = torch.tensor([4, bad, 9, bad])
    want = native.to_dense()[[4, 0, 9, 0]]
    assert same_bits(ops.lookup(triton, on_device(ids), bounds="ignore").cpu(), want)
    message = rf"lookup: 2 of 4 ids are out of range 0\.\.9, first ids\[1\] = {bad}; row 0 was read instead"
    with pytest.warns(UserWarning, match=message):
        assert same_bits(ops.lookup(triton, on_device(ids), bounds="warning").cpu(), want)
    grad = gradients((triton,), ids, torch.ones(4, 33), bounds="ignore")[0]
    sums = torch.zeros(10, 33)
    sums[[4, 9]] = 1
    sums[0] = 2
    assert torch.equal(grad, sums[native.mask()])


def test_out_is_written_and_nothing_around_it() -> None:
    native, triton = pair("bits", 50, 33)
    ids, room = ids_of(20, 50), torch.full((22 * 33,), 99.0, device=DEVICE)
    out = room[33 : 21 * 33].view(20, 33)
    assert ops.lookup(triton, on_device(ids), out=out) is out
    assert same_bits(out.cpu(), native.to_dense()[ids])
    assert bool((room[:33] == 99).all())
    assert bool((room[-33:] == 99).all())
    with pytest.raises(ValueError, match=r"lookup: out has shape \[3, 33\], expected \[20, 33\]"):
        ops.lookup(triton, on_device(ids), out=torch.empty(3, 33, device=DEVICE))


@pytest.mark.skipif(not INTERPRETED, reason="checks of the host, the same everywhere")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ids": torch.zeros(3, dtype=torch.int32)}, TypeError, "ids has dtype torch.int32, expected torch.int64"),
        ({"ids": torch.zeros(3, 1, dtype=torch.int64)}, ValueError, "ids has shape [3, 1], expected one dimension"),
        ({"ids": torch.zeros(6, dtype=torch.int64)[::2]}, ValueError, "ids is not contiguous"),
        ({"values": torch.zeros(9)}, ValueError, "cols has"),
        ({"index": torch.zeros(3, dtype=torch.int64)}, ValueError, "index has 3 words, expected 16"),
        ({"kind": 4}, ValueError, "index kind 4 is not one of 0 (full) .. 3 (cols8)"),
        ({"dim": 257}, ValueError, "dim is 257, expected 1..256"),
        ({"bounds": 3}, ValueError, "bounds is 3, expected 0, 1 or 2"),
        ({"padding": 60}, ValueError, "padding row is 60, expected -1 (none) or 0..59"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, Tensor | int], error: type[Exception], message: str) -> None:
    from recsparse import triton_kernels

    table = pair("cols8", 60, 33)[1]
    kind, rows, dim = table.layout
    ids = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    given = {**table.state_dict(), "ids": ids, "kind": kind, "rows": rows, "dim": dim}
    with pytest.raises(error) as caught:
        triton_kernels.lookup(**{**given, **change})
    assert f"lookup: {message}" in str(caught.value)


@pytest.mark.parametrize("kind", ["full", "bits"])
def test_values_beyond_2_to_the_31(kind: str) -> None:
    """Addresses are 64-bit: the weights of the last rows lie behind 2^31 others, which nobody touches."""
    torch.utils.deterministic.fill_uninitialized_memory = False  # the memory is only reserved
    rows, dim = 2**25 + 9, 64
    values = torch.empty(rows * dim, dtype=torch.float16, device=DEVICE)
    want = torch.randn(8, dim, dtype=torch.float16, generator=torch.Generator().manual_seed(0))
    values[-8 * dim :] = want.flatten()
    if kind == "full":
        table = PackedTable(
            rows,
            dim,
            kind,
            *(torch.empty(0, dtype=t, device=DEVICE) for t in (torch.int64, torch.uint8)),
            values,
            "triton",
        )
        ids = torch.arange(rows - 8, rows)
    else:
        small = PackedTable.from_dense(torch.ones(8, dim), kind=kind)
        small.index.view(-1, 8)[:, 0] += (rows - 8) * dim
        table = PackedTable(8, dim, kind, *on_device(small.index, small.cols), values, "triton")
        ids = torch.arange(8)
    assert same_bits(ops.lookup(table, on_device(ids)).cpu(), want)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str) -> None:
    from recsparse import triton_kernels

    table = random_table(kind, 6, 17, slack=2)
    values = on_device(table.values.double()).requires_grad_()
    index, cols, ids = on_device(table.index, table.cols, torch.tensor([5, 0, 5, 2]))
    torch.autograd.gradcheck(lambda v: triton_kernels.lookup(index, cols, v, ids, *table.layout), (values,))
