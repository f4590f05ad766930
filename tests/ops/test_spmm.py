"""spmm: against the reference, its gradient, and what must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interactions import random_interactions
from strategies import DTYPES, same_bits
from torch import Tensor

from recsparse import ops, reference
from recsparse.data import Interactions
from recsparse.graph import Graph

USERS, ITEMS = 70, 50
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def graph_of(density: float = 0.2, *, seed: int = 0, wide: bool = False) -> Graph:
    return Graph.from_interactions(random_interactions(USERS, ITEMS, density, seed), ITEMS, wide=wide)


def rows(graph: Graph, dim: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(graph.nodes, dim, generator=torch.Generator().manual_seed(seed)).to(dtype)


def star(users: int) -> Graph:
    """One item that everybody has, and one each: a row so long that it is cut."""
    indptr = np.arange(0, 2 * users + 1, 2, dtype=np.int64)
    pairs = np.stack([np.zeros(users), 1 + np.arange(users)], 1).astype(np.int32)
    return Graph.from_interactions(Interactions(indptr, pairs.reshape(-1)), users + 1)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 7, 16, 33, 48, 64, 65, 100, 128, 256, 300])
def test_equals_the_reference(dim: int, dtype: torch.dtype, wide: bool, threads: int) -> None:
    graph = graph_of(wide=wide)
    x = rows(graph, dim, dtype=dtype)
    out = ops.spmm(graph, x)
    assert out.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(out, reference.spmm(*graph.tensors, x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dim", [3, 64, 80])
@pytest.mark.parametrize("users", [2047, 2048, 2049, 9000])
def test_rows_that_are_cut(users: int, dim: int, threads: int) -> None:
    graph = star(users)
    x = rows(graph, dim)
    torch.testing.assert_close(ops.spmm(graph, x), reference.spmm(*graph.tensors, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("density", [0.0, 0.01])
def test_nodes_without_neighbours_give_zeros(density: float, threads: int) -> None:
    graph = graph_of(density)
    x = rows(graph, 40)
    out = ops.spmm(graph, x)
    alone = graph.scale == 0
    assert bool(alone.any())
    assert same_bits(out[alone], torch.zeros_like(out[alone]))
    torch.testing.assert_close(out, reference.spmm(*graph.tensors, x), rtol=1e-6, atol=1e-6)


@given(st.integers(1, 150), st.floats(0, 1), st.integers(0, 2**31), st.integers(1, 3))
def test_any_case(dim: int, density: float, seed: int, threads: int) -> None:
    graph = graph_of(density, seed=seed)
    x = rows(graph, dim, seed=seed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    out = ops.spmm(graph, x)
    torch.set_num_threads(before)
    torch.testing.assert_close(out, reference.spmm(*graph.tensors, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_thread_count_and_run(dtype: torch.dtype) -> None:
    graph = star(5000)
    x = rows(graph, 70, dtype=dtype)
    before, results = torch.get_num_threads(), []
    for number in (1, 2, 3, 2):
        torch.set_num_threads(number)
        results.append(ops.spmm(graph, x))
    torch.set_num_threads(before)
    assert all(same_bits(result, results[0]) for result in results[1:])


@pytest.mark.parametrize("dim", [5, 64])
def test_the_gradient_is_the_op_itself(dim: int) -> None:
    """A linear op: exact steps. <g, A x> has the gradient A g, because A equals its transpose."""
    graph = graph_of()
    x, weight = rows(graph, dim).requires_grad_(), rows(graph, dim, seed=1)
    (ops.spmm(graph, x) * weight).sum().backward()
    assert x.grad is not None
    assert same_bits(x.grad, ops.spmm(graph, weight))
    step = rows(graph, dim, seed=2)
    slope = float((x.grad.double() * step.double()).sum())
    with torch.no_grad():
        change = float(((ops.spmm(graph, x + step).double() - ops.spmm(graph, x).double()) * weight.double()).sum())
    assert change == pytest.approx(slope, rel=1e-4)


def test_second_gradients_pass_through() -> None:
    graph = graph_of()
    x = rows(graph, 8).requires_grad_()
    (first,) = torch.autograd.grad(ops.spmm(graph, x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    ones = torch.ones_like(first)
    torch.testing.assert_close(second, 2 * ops.spmm(graph, ops.spmm(graph, ones)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype: torch.dtype) -> None:
    graph = graph_of()
    torch.library.opcheck(torch.ops.recsparse.spmm, (*graph.tensors, rows(graph, 9, dtype=dtype)))
    torch.library.opcheck(torch.ops.recsparse.spmm, (*graph.tensors, rows(graph, 9).requires_grad_()))


def test_compiles_without_breaks() -> None:
    graph = graph_of()
    x = rows(graph, 16)
    compiled = torch.compile(lambda x: ops.spmm(graph, x).relu(), fullgraph=True, backend="aot_eager")
    assert same_bits(compiled(x), ops.spmm(graph, x).relu())


def test_wrong_arguments_are_named() -> None:
    graph = graph_of()
    for x, error, message in (
        (rows(graph, 4)[:-1], ValueError, r"spmm: x has shape \[119, 4\], expected \[120 nodes, d\]"),
        (rows(graph, 4).double(), TypeError, "spmm: x has dtype Double"),
        (rows(graph, 4).t().contiguous().t(), ValueError, "spmm: x is not contiguous"),
        (rows(graph, 4)[:, 0].contiguous(), ValueError, "spmm: x has shape"),
    ):
        with pytest.raises(error, match=message):
            ops.spmm(graph, x)
    with pytest.raises(ValueError, match="spmm: chunks end at"):
        torch.ops.recsparse.spmm(*graph.tensors[:5], graph.chunks[:-1], rows(graph, 4))
