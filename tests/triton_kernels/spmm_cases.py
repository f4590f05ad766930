"""spmm in Triton against the native op."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from interactions import random_interactions
from strategies import DTYPES, same_bits
from torch import Tensor
from triton_tables import DEVICE, on_device, spmm

from recsparse import ops
from recsparse.data import Interactions
from recsparse.graph import Graph
from recsparse.triton_kernels.graph import DENSE, tile_of
from recsparse.triton_kernels.tile import launch

USERS, ITEMS = 70, 50
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def graph_of(density: float = 0.2, *, wide: bool = False) -> Graph:
    return Graph.from_interactions(random_interactions(USERS, ITEMS, density), ITEMS, wide=wide)


def rows(graph: Graph, dim: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(graph.nodes, dim, generator=torch.Generator().manual_seed(seed)).to(dtype)


def star(*fans: int) -> Graph:
    """Items that the first so many users have: rows so long that they are cut, more than one in a window too."""
    users = max(fans)
    mask = torch.arange(users)[:, None] < torch.tensor(fans)
    indptr = np.concatenate([[0], mask.sum(1).cumsum(0).numpy()]).astype(np.int64)
    return Graph.from_interactions(Interactions(indptr, mask.nonzero()[:, 1].int().numpy()), len(fans))


def both(graph: Graph, x: Tensor) -> tuple[Tensor, Tensor]:
    """(Triton's product, the native one)."""
    return ops.spmm(graph.to(DEVICE), on_device(x), backend="triton"), ops.spmm(graph, x)


@pytest.mark.parametrize(
    ("dim", "dtype", "wide"),
    [*((dim, torch.float32, False) for dim in (1, 33, 64, 256, 300)), *((100, dtype, True) for dtype in DTYPES)],
)
def test_equals_the_native_op(dim: int, dtype: torch.dtype, wide: bool) -> None:
    graph = graph_of(wide=wide)
    found, want = both(graph, rows(graph, dim, dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.cpu(), want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dim", [3, 64])
@pytest.mark.parametrize("fans", [(2048,), (2049, 3000), (4096, 2500, 7, 6150)])
def test_rows_that_are_cut(fans: tuple[int, ...], dim: int) -> None:
    graph = star(*fans)
    assert int(graph.chunks[0]) == sum(each > 2048 for each in fans)
    found, want = both(graph, rows(graph, dim))
    torch.testing.assert_close(found.cpu(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("density", [0.0, 0.01, 1.0])
def test_nodes_without_neighbours_and_with_all(density: float) -> None:
    graph = graph_of(density)
    found, want = both(graph, rows(graph, 40))
    torch.testing.assert_close(found.cpu(), want, rtol=2e-6, atol=2e-6)
    assert same_bits(found.cpu()[graph.scale == 0], want[graph.scale == 0])


def test_a_graph_without_nodes() -> None:
    graph = Graph.from_interactions(Interactions(np.zeros(1, np.int64), np.zeros(0, np.int32)), 0)
    assert both(graph, rows(graph, 8))[0].shape == (0, 8)


def test_the_same_bits_each_time() -> None:
    graph = star(3000, 2500).to(DEVICE)
    x = on_device(rows(graph, 33))
    results = [ops.spmm(graph, x, backend="triton") for _ in range(3)]
    assert all(same_bits(result, results[0]) for result in results[1:])


def test_gradients_pass_through_twice() -> None:
    graph = graph_of()
    firsts, seconds = [], []
    for where, backend in ((graph.to(DEVICE), "triton"), (graph, "cpu")):
        x = rows(graph, 8).to(where.scale.device).requires_grad_()
        (first,) = torch.autograd.grad(ops.spmm(where, x, backend=backend).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        firsts.append(first.detach().cpu())
        seconds.append(second.cpu())
    torch.testing.assert_close(firsts[0], firsts[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seconds[0], seconds[1], rtol=1e-5, atol=1e-5)


def test_rows_beyond_2_to_the_31() -> None:
    """Addresses are 64-bit: of 2^23 nodes only the last two have rows, and the kernel is asked for these."""
    torch.utils.deterministic.fill_uninitialized_memory = False  # the memory is only reserved
    nodes, dim = 2**23 + 9, 256
    x, out = (torch.empty(nodes, dim, dtype=torch.float16, device=DEVICE) for _ in range(2))
    scale = torch.empty(nodes, device=DEVICE)
    pair = torch.randn(2, dim, generator=torch.Generator().manual_seed(0)).half()
    x[-2:], scale[-2:] = pair, 0.5
    offsets, neighbours, chunks, node = on_device(
        torch.tensor([0, 1, 2]),
        torch.tensor([nodes - 1, nodes - 2], dtype=torch.int32),
        torch.tensor([0, 2]),
        torch.tensor([nodes - 2, nodes - 1], dtype=torch.int32),
    )
    shape = {"FROM": DENSE.value, "KIND": 0, "DIM": dim, "WORDS": 1, **tile_of(dim)}
    tensors = (offsets, neighbours, chunks, offsets, offsets, x, offsets, scale, x[:0], node, out, 2)
    launch(spmm._spmm_kernel, 2, 1, *tensors, **shape, ROWS=1, SPLITS=1)
    assert torch.equal(out[-2:].cpu(), 0.25 * pair.flip(0))


def test_wrong_arguments_are_named() -> None:
    graph = graph_of().to(DEVICE)
    x = on_device(rows(graph, 4))
    for wrong, error, message in (
        (x[:-1], ValueError, r"spmm: x has shape \[119, 4\], expected \[120 nodes, d\]"),
        (x.double(), TypeError, r"spmm: x has dtype torch\.float64"),
        (x.t().contiguous().t(), ValueError, "spmm: x is not contiguous"),
        (x[:, 0].contiguous(), ValueError, "spmm: x has shape"),
    ):
        with pytest.raises(error, match=message):
            ops.spmm(graph, wrong, backend="triton")
