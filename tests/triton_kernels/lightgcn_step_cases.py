"""lightgcn_step_ and lightgcn_grow_scores in Triton against the native ops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from interactions import random_interactions
from strategies import DTYPES, KINDS, random_table, random_triples, same_bits
from torch import Tensor
from triton_tables import DEVICE, INTERPRETED, lightgcn_step, on_device, on_triton

from recsparse import ops
from recsparse.data import Interactions
from recsparse.graph import Graph
from recsparse.optim import OPTIMIZERS, SGD, Adam
from recsparse.reference.rounding import round_stochastic, rounding_bits
from recsparse.table import PackedTable
from recsparse.triton_kernels import graph as graphs
from recsparse.triton_kernels.tile import launch

USERS, ITEMS = 30, 20
ROWS = USERS + ITEMS
Triples = tuple[Tensor, Tensor, Tensor]


def graph_of(density: float = 0.2) -> Graph:
    return Graph.from_interactions(random_interactions(USERS, ITEMS, density), ITEMS)


def train(
    table: PackedTable, graph: Graph, triples: Triples, name: str = "sgd", *, lr: float = 0.5, batch_size: int = 16,
    layers: int = 3, hidden: torch.dtype = torch.float32, weight_decay: float = 0.0,
):  # fmt: skip
    device = table.values.device
    optimizer = OPTIMIZERS[name](table, lr=lr, weight_decay=weight_decay, seed=5)
    ids = (tensor.to(device) for tensor in triples)
    options = {"layers": layers, "batch_size": batch_size, "l2": 0.02, "hidden": hidden}
    loss = ops.lightgcn_step_(table, optimizer, graph.to(device), *ids, **options)
    table.check_invariants()
    return optimizer, loss


def assert_close(start: PackedTable, graph: Graph, triples: Triples, name: str = "sgd", *, atol: float = 2e-6, **how):
    native, triton = copy_of(start), on_triton(start)
    (slow, want), (fast, loss) = (train(table, graph, triples, name, **how) for table in (native, triton))
    torch.testing.assert_close(loss.cpu(), want, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(triton.values.cpu(), native.values, rtol=1e-5, atol=atol)
    torch.testing.assert_close(fast.state.cpu(), slow.state, rtol=1e-3, atol=1e-7)
    assert int(fast.step) == int(slow.step) == len(want)
    assert bool((triton.values.cpu() != start.values).any()) == (len(want) > 0)


def copy_of(table: PackedTable) -> PackedTable:
    state = (tensor.clone() for tensor in table.state_dict().values())
    return PackedTable(table.rows, table.dim, table.kind, *state)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_every_number_of_layers(layers: int) -> None:
    """Two whole mini-batches and a short one; some rows are empty, some full, some nodes have no neighbours."""
    start = random_table("bits", ROWS, 64, scale=0.3, slack=5)
    assert_close(start, graph_of(), random_triples(36, USERS, ITEMS), layers=layers)


@pytest.mark.parametrize(("kind", "dim"), [*((kind, 33) for kind in KINDS), ("cols8", 1), ("bits", 256), ("full", 100)])
def test_every_kind(kind: str, dim: int) -> None:
    start = random_table(kind, ROWS, dim, seed=dim, scale=0.3)
    assert_close(start, graph_of(), random_triples(20, USERS, ITEMS, seed=dim), layers=2)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimiser(name: str) -> None:
    start = random_table("bits", ROWS, 33, scale=0.3)
    triples = random_triples(32, USERS, ITEMS)
    assert_close(start, graph_of(), triples, name, atol=2e-4, lr=0.05, layers=2, weight_decay=0.1)


def test_rows_that_are_in_most_triples_and_mini_batches_of_one() -> None:
    """More than 64 times in a mini-batch: a program of its own."""
    start = random_table("bits", ROWS, 33, scale=0.3)
    assert_close(start, graph_of(), random_triples(150, USERS, ITEMS, hot=3), layers=2, batch_size=140)
    assert_close(start, graph_of(), random_triples(2, USERS, ITEMS), layers=1, batch_size=1)
    assert_close(start, graph_of(), random_triples(0, USERS, ITEMS))
    users, pos, _ = random_triples(16, USERS, ITEMS)
    assert_close(start, graph_of(1.0), (users, pos, pos), layers=2)


def test_rows_that_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Item 0 has 2,100 users: its sum comes from pieces, from every source and in both directions."""
    monkeypatch.setattr(graphs, "MOST_ACROSS", 16)  # other rows have about as many
    users, items = 2100, 151
    indptr = np.arange(0, 2 * users + 1, 2, dtype=np.int64)
    pairs = np.stack([np.zeros(users), 1 + np.arange(users) % 150], 1).astype(np.int32)
    graph = Graph.from_interactions(Interactions(indptr, pairs.reshape(-1)), items)
    assert int(graph.chunks[0]) > 0
    start = random_table("bits", users + items, 20, scale=0.3)
    assert_close(start, graph, random_triples(32, users, items), layers=2, batch_size=32)


def test_hidden_rows_of_bfloat16_stay_close() -> None:
    start, triples = random_table("bits", ROWS, 64, scale=0.3), random_triples(64, USERS, ITEMS)
    wide, half = on_triton(start), on_triton(start)
    _, loss = train(wide, graph_of(), triples)
    _, half_loss = train(half, graph_of(), triples, hidden=torch.bfloat16)
    torch.testing.assert_close(half_loss, loss, rtol=5e-3, atol=5e-3)
    torch.testing.assert_close(half.values, wide.values, rtol=2e-2, atol=2e-2)
    assert not same_bits(half.values, wide.values)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_16_bit_weights_round_with_the_bits_of_the_reference(dtype: torch.dtype) -> None:
    """A float32 table makes the same step; its result, rounded by the reference, is what the 16-bit table holds."""
    small = on_triton(random_table("bits", ROWS, 33, scale=0.3, dtype=dtype))
    wide = PackedTable(ROWS, 33, "bits", small.index, small.cols, small.values.float(), "triton")
    graph, triples = graph_of().to(DEVICE), on_device(*random_triples(20, USERS, ITEMS))
    for table in (small, wide):
        optimizer = SGD(table, lr=0.5, seed=7)
        optimizer.step += 2**33
        ops.lightgcn_step_(table, optimizer, graph, *triples, layers=2, batch_size=20)
    mask = small.mask().cpu()
    random = rounding_bits(7, 2**33 + 1, torch.arange(ROWS)[:, None], mask.cumsum(1) - 1)[mask]
    exact = wide.values[: wide.nnz].cpu()
    assert same_bits(small.values[: small.nnz].cpu(), round_stochastic(exact, dtype, random))
    assert bool((small.values[: small.nnz].cpu().float() != exact).any())


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("limit", [0, 50, 10**6])
def test_grow_scores_equal_the_native_ones(layers: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightgcn_step, "CHUNK_SLOTS", 30 * 33)  # two parts
    start, triples = random_table("bits", ROWS, 33, scale=0.3), random_triples(80, USERS, ITEMS, seed=1)
    options = {"layers": layers, "limit": limit}
    want_keys, want = ops.lightgcn_grow_scores(start, graph_of(), *triples, **options)
    table, graph = on_triton(start), graph_of().to(DEVICE)
    keys, scores = ops.lightgcn_grow_scores(table, graph, *on_device(*triples), **options)
    assert torch.equal(keys.cpu(), want_keys)
    torch.testing.assert_close(scores.cpu(), want, rtol=1e-4, atol=1e-8)
    assert len(keys) <= limit


def test_the_same_bits_each_time() -> None:
    start, triples = random_table("bits", ROWS, 64, scale=0.3), random_triples(100, USERS, ITEMS, hot=2)
    results = []
    for _ in range(3):
        table = on_triton(start)
        train(table, graph_of(), triples, "adam", batch_size=90, layers=2)
        results.append(table.values.cpu())
    assert all(same_bits(results[0], other) for other in results[1:])


def test_node_ids_of_64_bits() -> None:
    """The native op has none; the same bits as with 32."""
    start, triples, results = random_table("bits", ROWS, 33, scale=0.3), random_triples(20, USERS, ITEMS), []
    for wide in (False, True):
        graph = Graph.from_interactions(random_interactions(USERS, ITEMS, 0.2), ITEMS, wide=wide)
        table = on_triton(start)
        _, loss = train(table, graph, triples, layers=2)
        results.append((table.values.cpu(), loss.cpu()))
    assert all(same_bits(*pair) for pair in zip(*results, strict=True))


def test_rows_beyond_2_to_the_31() -> None:
    """Addresses are 64-bit: of 2^23 nodes only the last two have rows, and the kernels are asked for these."""
    torch.utils.deterministic.fill_uninitialized_memory = False  # the memory is only reserved
    nodes, dim = 2**23 + 9, 256
    values, x, out = (torch.empty(nodes, dim, dtype=torch.float16, device=DEVICE) for _ in range(3))
    scale, member = torch.empty(nodes, device=DEVICE), torch.full((nodes,), -1, dtype=torch.int32, device=DEVICE)
    values[-2:], x[-2], x[-1], scale[-2:] = 1, 4, 8, 0.5
    offsets, neighbours, chunks, node, index, cols, step, steps = on_device(
        torch.tensor([0, 1, 2]),
        torch.tensor([nodes - 1, nodes - 2], dtype=torch.int32),
        torch.tensor([0, 2]),
        torch.tensor([nodes - 2, nodes - 1], dtype=torch.int32),
        torch.empty(0, dtype=torch.int32),
        torch.empty(0, dtype=torch.uint8),
        torch.zeros(1, dtype=torch.int64),
        torch.tensor([0.5, 1e-8]),
    )
    shape = {"FROM": graphs.SCALED.value, "KIND": 0, "DIM": dim, "WORDS": 8, "ROWS": 1, **graphs.tile_of(dim)}
    source = (offsets, neighbours, chunks, index, cols, x, member, scale, x[:0])
    launch(lightgcn_step._layer_forward_kernel, 2, 1, *source, node, values, out, 2, **shape)
    want = torch.tensor([[0.5 * (1 + 0.5 * 8)], [0.5 * (1 + 0.5 * 4)]]).half().expand(2, dim)
    assert torch.equal(out[-2:].cpu(), want)
    rest = (node, x, offsets, offsets, values, x, step, steps, 2, 0, 0, 0, 0.0, 0.0, 0.0, 0.0)
    launch(lightgcn_step._last_update_kernel, 2, 1, *source, *rest, **shape, OPTIMIZER=0)
    assert torch.equal(values[-2:].cpu(), torch.tensor([[-1.0], [0.0]]).half().expand(2, dim))


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU a bad id is a device-side assertion, which ends the process")
def test_a_bad_id_is_named_and_nothing_changes() -> None:
    table = on_triton(random_table("bits", ROWS, 33))
    before = table.values.clone()
    users, pos, neg = random_triples(20, USERS, ITEMS)
    neg[7] = ITEMS
    with pytest.raises(IndexError, match=rf"lightgcn_step_: neg\[7\] = {ITEMS} is out of range"):
        train(table, graph_of(), (users, pos, neg))
    assert same_bits(table.values, before)


def test_wrong_arguments_are_named() -> None:
    table, graph, triples = on_triton(random_table("bits", ROWS, 33)), graph_of(), random_triples(8, USERS, ITEMS)
    with pytest.raises(ValueError, match="lightgcn_step_: layers is 0"):
        train(table, graph, triples, layers=0)
    with pytest.raises(ValueError, match="lightgcn_step_: batch_size is 0"):
        train(table, graph, triples, batch_size=0)
    small = on_triton(random_table("bits", ROWS - 1, 33))
    with pytest.raises(
        ValueError, match=rf"lightgcn_step_: the graph has {ROWS} nodes, expected one a row, {ROWS - 1}"
    ):
        train(small, graph, triples)
    with pytest.raises(ValueError, match="lightgcn_grow_scores: limit is -1"):
        ops.lightgcn_grow_scores(table, graph.to(DEVICE), *on_device(*triples), layers=2, limit=-1)


def test_a_step_can_be_captured_in_a_graph() -> None:
    if INTERPRETED:
        pytest.skip("graphs are for GPUs")
    table, eager = (on_triton(random_table("bits", ROWS, 64, scale=0.3)) for _ in range(2))
    graph, triples = graph_of().to(DEVICE), on_device(*random_triples(64, USERS, ITEMS))
    optimizer, other = Adam(table), Adam(eager)
    options = {"layers": 3, "batch_size": 32}
    ops.lightgcn_step_(eager, other, graph, *triples, **options)  # compiles
    capture = torch.cuda.CUDAGraph()
    with torch.cuda.graph(capture):
        ops.lightgcn_step_(table, optimizer, graph, *triples, **options)
    capture.replay()
    torch.cuda.synchronize(DEVICE)
    assert same_bits(table.values, eager.values)
    assert int(optimizer.step) == 2
