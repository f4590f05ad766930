"""The interaction graph: what it holds, its order, and what building it costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interactions import random_interactions

from recsparse import _host
from recsparse.data import Interactions
from recsparse.graph import Graph


def dense_matrix(train: Interactions, n_items: int) -> torch.Tensor:
    """D^-1/2 A D^-1/2, float64, from its definition."""
    nodes = train.n_users + n_items
    a = torch.zeros(nodes, nodes, dtype=torch.float64)
    for user in range(train.n_users):
        for item in train.row(user):
            a[user, train.n_users + int(item)] = a[train.n_users + int(item), user] = 1
    degree = a.sum(1)
    scale = torch.where(degree > 0, degree.rsqrt(), 0.0)
    return scale[:, None] * a * scale


@given(st.integers(1, 40), st.integers(1, 30), st.floats(0, 1), st.integers(0, 2**31), st.booleans())
def test_is_the_normalised_symmetric_matrix(users: int, items: int, density: float, seed: int, wide: bool) -> None:
    train = random_interactions(users, items, density, seed)
    graph = Graph.from_interactions(train, items, wide=wide)
    assert graph.neighbours.dtype == (torch.int64 if wide else torch.int32)
    assert graph.edges == train.nnz
    torch.testing.assert_close(graph.to_sparse_csr().to_dense().double(), dense_matrix(train, items))
    nodes = torch.arange(graph.nodes)
    assert torch.equal(graph.node[graph.slot.long()].long(), nodes)
    assert torch.equal(graph.node.long().sort().values, nodes)
    assert int(graph.chunks[-1]) == graph.nodes
    assert bool((graph.chunks.diff() > 0).all())


def test_neighbours_ascend_in_each_row() -> None:
    graph = Graph.from_interactions(random_interactions(60, 50, 0.2, 3), 50)
    for begin, end in zip(graph.offsets[:-1].tolist(), graph.offsets[1:].tolist(), strict=True):
        assert bool((graph.neighbours[begin:end].diff() > 0).all())


def test_order_brings_alike_rows_together() -> None:
    """Two communities whose ids are interleaved: the slots must hold one after the other."""
    users, items = 200, 160
    taste = (np.arange(users)[:, None] % 2) == (np.arange(items)[None] % 2)
    odds = np.random.default_rng(1).random((users, items))
    pairs = np.where(taste, odds < 0.3, odds < 0.01)
    indptr = np.concatenate([[0], pairs.sum(1).cumsum()]).astype(np.int64)
    graph = Graph.from_interactions(Interactions(indptr, pairs.nonzero()[1].astype(np.int32)), items)
    side = graph.node[: graph.n_users].long() % 2
    changes = int((side[1:] != side[:-1]).sum())
    assert changes < 20  # about 100 where the order says nothing


def test_order_tells_more_than_two_tastes_apart() -> None:
    """Eight communities, which no single direction separates."""
    users, items, tastes = 1024, 512, 8
    alike = (np.arange(users)[:, None] % tastes) == (np.arange(items)[None] % tastes)
    odds = np.random.default_rng(2).random((users, items))
    pairs = np.where(alike, odds < 0.3, odds < 0.005)
    indptr = np.concatenate([[0], pairs.sum(1).cumsum()]).astype(np.int64)
    graph = Graph.from_interactions(Interactions(indptr, pairs.nonzero()[1].astype(np.int32)), items)
    taste = graph.node[:users].long() % tastes
    changes = int((taste[1:] != taste[:-1]).sum())
    assert changes < users // 5  # 7 in 8 rows where the order says nothing


def test_isolated_nodes_and_equal_rows_have_an_order() -> None:
    """Points that are all one, or nowhere, are halved too."""
    users = 300
    indptr = np.minimum(np.arange(users + 1), 200).astype(np.int64)  # users from 200 on have no items
    graph = Graph.from_interactions(Interactions(indptr, np.zeros(200, np.int32)), 70)
    assert torch.equal(graph.node.long().sort().values, torch.arange(users + 70))
    again = Graph.from_interactions(Interactions(indptr, np.zeros(200, np.int32)), 70)
    assert torch.equal(graph.node, again.node)


def test_long_rows_come_first_and_are_cut() -> None:
    users, items = 5000, 6
    indptr = np.arange(0, 2 * users + 1, 2, dtype=np.int64)
    pairs = np.stack([np.zeros(users), 1 + np.arange(users) % 5], 1).astype(np.int32)
    graph = Graph.from_interactions(Interactions(indptr, pairs.reshape(-1)), items)
    assert int(graph.chunks[0]) == 1  # item 0, that everybody has
    assert int(graph.node[0]) == users
    assert int(graph.offsets[1]) == users


def test_a_graph_moves_as_a_whole() -> None:
    graph = Graph.from_interactions(Interactions(np.array([0, 1]), np.array([1], np.int32)), 2)
    assert graph.to("cpu") is graph
    moved = graph.to("meta")
    assert all(tensor.is_meta for tensor in moved.tensors)
    assert (moved.n_users, moved.n_items, moved.edges) == (1, 2, 1)


def test_an_inconsistent_matrix_is_refused() -> None:
    with pytest.raises(_host.DataError):
        Graph.from_interactions(Interactions(np.array([0, 2]), np.array([1, 0], np.int32)), 2)
    with pytest.raises(_host.DataError):
        Graph.from_interactions(Interactions(np.array([0, 1]), np.array([2], np.int32)), 2)
