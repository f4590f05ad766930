"""lightgcn_step_ and lightgcn_grow_scores: against the reference, a plain torch LightGCN, and what must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from interactions import random_interactions
from strategies import DTYPES, KINDS, random_table, random_triples, same_bits
from torch import Tensor
from torch.nn.functional import softplus

from recsparse import ops
from recsparse.data import Interactions
from recsparse.graph import Graph
from recsparse.optim import OPTIMIZERS, SGD, Adam, TableOptimizer
from recsparse.table import PackedTable

USERS, ITEMS = 60, 45
ROWS = USERS + ITEMS
Triples = tuple[Tensor, Tensor, Tensor]


def graph_of(density: float = 0.15, seed: int = 0) -> Graph:
    return Graph.from_interactions(random_interactions(USERS, ITEMS, density, seed), ITEMS)


def copy_of(table: PackedTable, backend: str = "auto") -> PackedTable:
    state = (tensor.clone() for tensor in table.state_dict().values())
    return PackedTable(table.rows, table.dim, table.kind, *state, backend)


def train(
    table: PackedTable,
    graph: Graph,
    triples: Triples,
    *,
    cls: type[TableOptimizer] = Adam,
    layers: int = 3,
    batch_size: int = 32,
    hidden: torch.dtype = torch.float32,
    lr: float = 0.01,
) -> tuple[TableOptimizer, Tensor]:
    optimizer = cls(table, lr=lr, seed=5)  # type: ignore[call-arg]
    loss = ops.lightgcn_step_(
        table, optimizer, graph, *triples, layers=layers, batch_size=batch_size, l2=0.02, hidden=hidden
    )
    table.check_invariants()
    optimizer.check_invariants()
    return optimizer, loss


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize(("kind", "dim"), [*((kind, 64) for kind in KINDS), ("bits", 33), ("cols8", 250), ("full", 1)])
def test_equals_the_reference(kind: str, dim: int, layers: int) -> None:
    """Whole mini-batches and a short one; some rows are empty, some full, some nodes have no neighbours. SGD, because
    Adam's first steps have the size of lr however small a gradient is: they would hide or magnify what differs."""
    graph, triples = graph_of(), random_triples(80, USERS, ITEMS, seed=dim)
    start = random_table(kind, ROWS, dim, seed=dim, scale=0.3, slack=0 if kind == "full" else 5)
    table, slow = copy_of(start), copy_of(start, "reference")
    _, loss = train(table, graph, triples, layers=layers, cls=SGD, lr=2.0)
    _, slow_loss = train(slow, graph, triples, layers=layers, cls=SGD, lr=2.0)
    torch.testing.assert_close(loss, slow_loss, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(table.values, slow.values, rtol=1e-5, atol=2e-6)
    assert not torch.equal(table.values, start.values)


@pytest.mark.parametrize("cls", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_optimiser_and_value_type(dtype: torch.dtype, cls: type[TableOptimizer], threads: int) -> None:
    graph, triples = graph_of(), random_triples(80, USERS, ITEMS)
    start = random_table("bits", ROWS, 64, scale=0.3, dtype=dtype)
    table, slow = copy_of(start), copy_of(start, "reference")
    optimizer, loss = train(table, graph, triples, cls=cls, lr=0.05)
    slow_optimizer, slow_loss = train(slow, graph, triples, cls=cls, lr=0.05)
    loose = dtype != torch.float32
    torch.testing.assert_close(loss, slow_loss, rtol=1e-3 if loose else 2e-6, atol=2e-6)
    torch.testing.assert_close(table.values, slow.values, rtol=2e-2 if loose else 1e-4, atol=2e-2 if loose else 2e-4)
    if not loose:
        torch.testing.assert_close(optimizer.state, slow_optimizer.state, rtol=1e-3, atol=1e-7)
    assert not torch.equal(table.values, start.values)


def test_50_steps_equal_a_plain_torch_lightgcn() -> None:
    """Dense, masked, torch.sparse and torch.optim.Adam: loss and table to 1e-5."""
    graph, (users, pos, neg), batch, l2, layers = graph_of(), random_triples(50 * 24, USERS, ITEMS), 24, 0.02, 3
    table = random_table("bits", ROWS, 64, scale=0.3)
    mask, matrix = table.mask(), graph.to_sparse_csr().double()
    weight = torch.nn.Parameter(table.to_dense().double())
    peer, losses = torch.optim.Adam([weight], lr=1e-3), []
    for step in range(50):
        part = slice(step * batch, (step + 1) * batch)
        ids = users[part], USERS + pos[part], USERS + neg[part]
        layer = total = weight * mask
        for _ in range(layers):
            layer = matrix @ layer
            total = total + layer
        mean = total / (layers + 1)
        u, i, j = (mean[rows] for rows in ids)
        ranking = softplus((u * j).sum(1) - (u * i).sum(1)).mean()
        rows = [(weight * mask)[each].square().sum() for each in ids]
        peer.zero_grad()
        (ranking + l2 / (2 * batch) * sum(rows)).backward()
        peer.step()
        losses.append(ranking.item())
    _, loss = train(table, graph, (users, pos, neg), batch_size=batch, lr=1e-3)
    torch.testing.assert_close(loss, torch.tensor(losses), rtol=0, atol=1e-5)
    torch.testing.assert_close(table.to_dense(), weight.detach().float() * mask, rtol=0, atol=1e-5)


def test_rows_that_are_cut(threads: int) -> None:
    """Item 0 has 2,100 users: its sum comes from two segments, in both directions."""
    users, items = 2100, 3
    indptr = np.arange(0, 2 * users + 1, 2, dtype=np.int64)
    pairs = np.stack([np.zeros(users), 1 + np.arange(users) % 2], 1).astype(np.int32)
    graph = Graph.from_interactions(Interactions(indptr, pairs.reshape(-1)), items)
    assert int(graph.chunks[0]) > 0
    start = random_table("bits", users + items, 20, scale=0.3)
    for layers in (1, 3):
        table, slow = copy_of(start), copy_of(start, "reference")
        triples = random_triples(64, users, items)
        results = []
        for each in (table, slow):
            optimizer = Adam(each, lr=0.01)
            results.append(ops.lightgcn_step_(each, optimizer, graph, *triples, layers=layers, batch_size=32))
        torch.testing.assert_close(results[0], results[1], rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(table.values, slow.values, rtol=1e-4, atol=2e-4)


def test_hidden_rows_of_bfloat16_stay_close(threads: int) -> None:
    graph, triples = graph_of(), random_triples(320, USERS, ITEMS)
    start = random_table("bits", ROWS, 64, scale=0.3)
    table, half = copy_of(start), copy_of(start)
    _, loss = train(table, graph, triples)
    _, half_loss = train(half, graph, triples, hidden=torch.bfloat16)
    torch.testing.assert_close(half_loss, loss, rtol=5e-3, atol=5e-3)
    assert not same_bits(half.values, table.values)


@pytest.mark.parametrize("hidden", [torch.float32, torch.bfloat16])
def test_same_bits_for_any_thread_count_and_cut(hidden: torch.dtype) -> None:
    graph, triples = graph_of(0.5), random_triples(700, USERS, ITEMS)
    start = random_table("bits", ROWS, 100, scale=0.3)
    before, results = torch.get_num_threads(), []
    for number in (1, 2, 3, 2):
        torch.set_num_threads(number)
        table = copy_of(start)
        optimizer, loss = train(table, graph, triples, batch_size=200, hidden=hidden)
        results.append((table.values, optimizer.state, loss))
    torch.set_num_threads(before)
    table = copy_of(start)
    optimizer = Adam(table, lr=0.01, seed=5)
    losses = []
    for begin in range(0, 700, 200):
        part = (ids[begin : begin + 200] for ids in triples)
        options = {"layers": 3, "batch_size": 200, "l2": 0.02}
        losses.append(ops.lightgcn_step_(table, optimizer, graph, *part, hidden=hidden, **options))
    results.append((table.values, optimizer.state, torch.cat(losses)))
    for result in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(result, results[0], strict=True))


def test_no_triples() -> None:
    table = random_table("bits", ROWS, 64)
    before = table.values.clone()
    optimizer, loss = train(table, graph_of(), random_triples(0, USERS, ITEMS))
    assert loss.shape == (0,)
    assert optimizer.step == 0
    assert same_bits(table.values, before)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", ["bits", "cols8", "prefix"])
@pytest.mark.parametrize("limit", [0, 1, 50, 10**6])
def test_grow_scores_equal_the_reference(kind: str, layers: int, limit: int, threads: int) -> None:
    graph, triples = graph_of(), random_triples(100, USERS, ITEMS, seed=1)
    table = random_table(kind, ROWS, 33, scale=0.3)
    keys, scores = ops.lightgcn_grow_scores(table, graph, *triples, layers=layers, limit=limit)
    slow = copy_of(table, "reference")
    _, all_scores = ops.lightgcn_grow_scores(slow, graph, *triples, layers=layers, limit=10**6)
    assert len(keys) <= limit
    assert bool((keys.diff() > 0).all())
    kept = table.mask().view(-1)
    assert not bool(kept[keys].any())
    want = all_scores.sort(descending=True).values[:limit]
    assert abs(len(want) - len(keys)) <= 2  # a gradient of 1e-20 here may be 0 there
    count = min(len(want), len(keys))
    torch.testing.assert_close(scores.sort(descending=True).values[:count], want[:count], rtol=1e-4, atol=1e-8)


def test_grow_scores_are_the_gradient_and_the_same_for_any_thread_count() -> None:
    graph, triples = graph_of(), random_triples(300, USERS, ITEMS)
    table = random_table("bits", ROWS, 64, scale=0.3)
    before, results = torch.get_num_threads(), []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        results.append(ops.lightgcn_grow_scores(table, graph, *triples, layers=3, limit=200))
    torch.set_num_threads(before)
    for keys, scores in results[1:]:
        assert torch.equal(keys, results[0][0])
        assert same_bits(scores, results[0][1])


@pytest.mark.parametrize("bad", [-1, ITEMS, 2**40])
def test_a_bad_id_is_named_and_nothing_has_changed(bad: int) -> None:
    table = random_table("bits", ROWS, 33)
    before = table.values.clone()
    users, pos, neg = random_triples(64, USERS, ITEMS)
    neg[7] = bad
    with pytest.raises(IndexError, match=rf"lightgcn_step_: neg\[7\] = {bad} is out of range"):
        train(table, graph_of(), (users, pos, neg))
    assert same_bits(table.values, before)


def test_wrong_arguments_are_named() -> None:
    table, graph, triples = random_table("bits", ROWS, 33), graph_of(), random_triples(8, USERS, ITEMS)
    with pytest.raises(TypeError, match=r"lightgcn_step_: hidden is torch\.float16"):
        train(table, graph, triples, hidden=torch.float16)
    with pytest.raises(ValueError, match="lightgcn_step_: layers is 0"):
        train(table, graph, triples, layers=0)
    with pytest.raises(ValueError, match="lightgcn_step_: batch_size is 0"):
        train(table, graph, triples, batch_size=0)
    with pytest.raises(ValueError, match="another table"):
        ops.lightgcn_step_(table, Adam(copy_of(table)), graph, *triples, layers=3, batch_size=8)
    small = random_table("bits", ROWS - 1, 33)
    with pytest.raises(ValueError, match=r"lightgcn_step_: the graph has 105 nodes, expected one a row, 104"):
        train(small, graph, triples)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(kind: str, dtype: torch.dtype) -> None:
    table, graph = random_table(kind, ROWS, 33, dtype=dtype), graph_of()
    optimizer = Adam(table)
    inputs = (*graph.tensors, *random_triples(20, USERS, ITEMS), *table.layout, USERS)
    weights = (table.values, optimizer.moments, optimizer.step, table.index, table.cols)
    torch.library.opcheck(
        torch.ops.recsparse.lightgcn_step_, (*weights, *inputs, 8, 2, False, *optimizer.hyper, 0.01, 3)
    )
    torch.library.opcheck(
        torch.ops.recsparse.lightgcn_grow_scores, (table.values, table.index, table.cols, *inputs, 2, False, 30)
    )
