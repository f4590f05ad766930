"""On a GPU: every op's CUDA kernel against its CPU kernel, the same bits three times, graph capture, far offsets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import small_runs
import torch
from interactions import random_interactions
from strategies import DIMS, DTYPES, KINDS, random_case, random_table, random_triples, same_bits
from torch import Tensor

from recsparse import ops
from recsparse.graph import Graph
from recsparse.optim import OPTIMIZERS, TableOptimizer
from recsparse.table import PackedTable

pytestmark = pytest.mark.gpu
USERS, ROWS = 100, 230


def on_gpu(table: PackedTable) -> PackedTable:
    tensors = (table.index.cuda(), table.cols.cuda(), table.values.detach().cuda())
    return PackedTable(table.rows, table.dim, table.kind, *tensors, backend="cuda")


def both(kind: str, dim: int, dtype: torch.dtype = torch.float32) -> tuple[PackedTable, PackedTable]:
    table = random_table(kind, ROWS, dim, seed=dim, scale=0.3, slack=5, dtype=dtype)
    return table, on_gpu(table)


def close(gpu: Tensor, cpu: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Equal to rounding; a 16-bit weight may be rounded the other way where float32 differs in its last bit."""
    rtol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(gpu.cpu(), cpu, rtol=rtol, atol=1e-6 if dtype == torch.float32 else 1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_lookup(kind: str, dim: int, dtype: torch.dtype) -> None:
    cpu, gpu = both(kind, dim, dtype)
    ids = torch.randint(0, ROWS, (1_500,), generator=torch.Generator().manual_seed(dim))
    rows = ops.lookup(cpu, ids)
    assert same_bits(ops.lookup(gpu, ids.cuda()).cpu(), rows)
    assert ops.lookup(gpu, ids[:0].cuda()).shape == (0, dim)
    for table in (cpu, gpu):
        table.values.requires_grad_()
    ops.lookup(cpu, ids).backward(rows)
    ops.lookup(gpu, ids.cuda()).backward(rows.cuda())
    close(gpu.values.grad, cpu.values.grad, dtype)


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_lookup_bag(kind: str, dim: int, mode: str) -> None:
    cpu, gpu = both(kind, dim)
    ids = torch.randint(0, ROWS, (700,), generator=torch.Generator().manual_seed(dim))
    offsets = torch.tensor([0, 0, 3, 90, 91, 600])
    outs = []
    for table, device in ((cpu, "cpu"), (gpu, "cuda")):
        table.values.requires_grad_()
        out = ops.lookup_bag(table, ids.to(device), offsets.to(device), mode=mode, padding_idx=3)
        out.square().sum().backward()
        outs.append(out.detach())
    close(outs[1], outs[0])
    close(gpu.values.grad, cpu.values.grad)


def trained(table: PackedTable, name: str, batch_size: int) -> tuple[TableOptimizer, Tensor]:
    device = table.values.device
    triples = (t.to(device) for t in random_triples(3_000, USERS, ROWS - USERS, seed=1, hot=40))
    optimizer = OPTIMIZERS[name](table, lr=0.01, weight_decay=0.01)
    loss = ops.bpr_step_(table, optimizer, *triples, item_offset=USERS, batch_size=batch_size, l2=0.01)
    return optimizer, loss


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_bpr_step(kind: str, dim: int, name: str) -> None:
    cpu, gpu = both(kind, dim)
    for batch_size in (3_000, 700):
        a, loss_a = trained(cpu, name, batch_size)
        b, loss_b = trained(gpu, name, batch_size)
        torch.testing.assert_close(loss_b.cpu(), loss_a, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gpu.values.cpu(), cpu.values, rtol=1e-3, atol=1e-4)
        assert int(b.step) == int(a.step)
    gpu.check_invariants()


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("kind", KINDS)
def test_bpr_step_of_16_bits(kind: str, dtype: torch.dtype) -> None:
    cpu, gpu = both(kind, 64, dtype)
    trained(cpu, "adam", 3_000)
    trained(gpu, "adam", 3_000)
    close(gpu.values, cpu.values, dtype)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_optimizers(kind: str, name: str, lazy: bool) -> None:
    grad = torch.randn(400, 100, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, ROWS, (400,), generator=torch.Generator().manual_seed(1))
    dense = torch.randn(ROWS, 100, generator=torch.Generator().manual_seed(2))
    tables = both(kind, 100)
    for table in tables:
        device = table.values.device
        optimizer = OPTIMIZERS[name](table, lr=0.01, weight_decay=0.1, lazy=lazy)
        optimizer.update_rows(ids.to(device), grad.to(device))
        optimizer.update_dense(dense.to(device))
        optimizer.update_packed(table.values.clone())
    torch.testing.assert_close(tables[1].values.cpu(), tables[0].values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1_000, 3_000_001])
def test_select(size: int, dtype: torch.dtype) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(size)).mul(64).round().to(dtype)
    for k in (0, 1, size // 10, size // 2, size):
        assert ops.select(values.cuda(), k) == ops.select(values, k)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", ["bits", "cols8"])
def test_prune_regrow(kind: str, dim: int) -> None:
    dense, mask = random_case(kind, 3_000, dim, seed=dim)
    rng = torch.Generator().manual_seed(dim)
    free = (~mask).view(-1).nonzero()[:, 0]
    keys = free[torch.rand(len(free), generator=rng) < 0.5]
    scores = torch.randn(len(keys), generator=rng).mul(8).round()
    cpu = PackedTable.from_dense(dense, mask, kind=kind)
    gpu = on_gpu(cpu)
    amount = min(len(keys), cpu.capacity // 3)
    states = []
    for table in (cpu, gpu):
        device = table.values.device
        state = torch.arange(2.0 * table.capacity, device=device)
        done = ops.prune_regrow_(table, state, keys.to(device), scores.to(device), drop=amount, grow=amount)
        states.append((done, state.cpu()))
    assert states[0][0] == states[1][0]
    assert torch.equal(states[0][1], states[1][1])
    for name, tensor in cpu.state_dict().items():
        assert same_bits(gpu.state_dict()[name].cpu(), tensor), name
    gpu.check_invariants()


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_made_alike(kind: str, dim: int) -> None:
    start = "full" if kind == "full" else "prefix" if kind == "prefix" else "bernoulli"
    capacity = ROWS * dim // (1 if kind == "full" else 3)
    options = {"kind": kind, "capacity": capacity, "start": start, "seed": dim}
    cpu, gpu = PackedTable.init(ROWS, dim, **options), PackedTable.init(ROWS, dim, **options, device="cuda")
    for name, tensor in cpu.state_dict().items():
        assert same_bits(gpu.state_dict()[name].cpu(), tensor), name
    assert same_bits(gpu.to_dense().cpu(), cpu.to_dense())
    again = PackedTable.from_dense(gpu.to_dense(), gpu.mask(), kind=kind, capacity=capacity)
    assert torch.equal(again.index, gpu.index)
    assert torch.equal(gpu.row_counts().cpu(), cpu.row_counts())
    if kind in ("bits", "cols8"):
        for table in (cpu, gpu):
            table.convert_("cols8" if kind == "bits" else "bits")
        assert torch.equal(gpu.index.cpu(), cpu.index)


def test_growth_scores_are_those_of_the_cpu() -> None:
    cpu, gpu = both("bits", 64)
    triples = random_triples(500, USERS, ROWS - USERS, seed=1)
    keys, scores = ops.bpr_grow_scores(cpu, *triples, item_offset=USERS, limit=10**6)
    found, theirs = ops.bpr_grow_scores(gpu, *(t.cuda() for t in triples), item_offset=USERS, limit=10**6)
    assert torch.equal(found.cpu(), keys)
    close(theirs, scores)


@pytest.mark.parametrize("mode", ["users", "interactions"])
def test_sampled_triples_are_the_same(mode: str) -> None:
    indptr, items = torch.tensor([0, 3, 4, 9]), torch.tensor([1, 4, 7, 2, 0, 1, 2, 3, 8], dtype=torch.int32)
    users = torch.tensor([5, 6, 9])
    want = ops.sample(indptr, items, users, 10, seed=3, start=7, count=5_000, mode=mode)
    got = ops.sample(indptr.cuda(), items.cuda(), users.cuda(), 10, seed=3, start=7, count=5_000, mode=mode)
    assert all(torch.equal(a, b.cpu()) for a, b in zip(want, got, strict=True))


def graph_of(*, wide: bool = False, density: float = 0.3) -> Graph:
    return Graph.from_interactions(random_interactions(USERS, ROWS - USERS, density), ROWS - USERS, wide=wide)


def hub() -> Graph:
    """One item that everybody has: a row of 9,000 neighbours, cut in segments."""
    return Graph.from_interactions(random_interactions(9_000, 3, 1.0), 3)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [*DIMS, 300])
def test_spmm(dim: int, dtype: torch.dtype, wide: bool) -> None:
    graph = graph_of(wide=wide)
    x = torch.randn(graph.nodes, dim, generator=torch.Generator().manual_seed(dim)).to(dtype)
    close(ops.spmm(graph.to("cuda"), x.cuda()), ops.spmm(graph, x), dtype)


@pytest.mark.parametrize("n", [None, 700])
@pytest.mark.parametrize("dim", DIMS)
def test_soft_threshold(dim: int, n: int | None) -> None:
    rng = torch.Generator().manual_seed(dim)
    values = torch.randn(61, dim, generator=rng)
    ids = None if n is None else torch.randint(0, 61, (n,), generator=rng)
    for shape in ((1, 1), (1, dim), (61, 1), (61, dim)):
        thresholds = torch.randn(shape, generator=rng)
        moved = (values.cuda(), thresholds.cuda(), None if ids is None else ids.cuda())
        rows = ops.soft_threshold(values, thresholds, ids)
        close(ops.soft_threshold(*moved), rows, torch.float32)
        grad = torch.randn(rows.shape, generator=rng)
        want = ops.soft_threshold_backward(grad, values, thresholds, ids)
        for mine, other in zip(ops.soft_threshold_backward(grad.cuda(), *moved), want, strict=True):
            torch.testing.assert_close(mine.cpu(), other, rtol=1e-4, atol=1e-4)
        three_times(lambda moved=moved, grad=grad: ops.soft_threshold_backward(grad.cuda(), *moved)[1])


@pytest.mark.parametrize("dim", [3, 64, 300])
def test_spmm_of_long_rows_is_the_same_three_times(dim: int) -> None:
    graph = hub()
    x, on_device = torch.randn(graph.nodes, dim, generator=torch.Generator().manual_seed(dim)), graph.to("cuda")
    torch.testing.assert_close(ops.spmm(on_device, x.cuda()).cpu(), ops.spmm(graph, x), rtol=1e-5, atol=1e-5)
    three_times(lambda: ops.spmm(on_device, x.cuda()))


def lightgcn_trained(table: PackedTable, graph: Graph, name: str, layers: int) -> tuple[TableOptimizer, Tensor]:
    device = table.values.device
    triples = (t.to(device) for t in random_triples(600, USERS, ROWS - USERS, seed=1, hot=40))
    optimizer = OPTIMIZERS[name](table, lr=0.01, weight_decay=0.01)
    options = {"layers": layers, "batch_size": 250, "l2": 0.01}
    return optimizer, ops.lightgcn_step_(table, optimizer, graph.to(device), *triples, **options)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_lightgcn_step(kind: str, dim: int, name: str, layers: int) -> None:
    cpu, gpu = both(kind, dim)
    graph = graph_of()
    a, loss_a = lightgcn_trained(cpu, graph, name, layers)
    b, loss_b = lightgcn_trained(gpu, graph, name, layers)
    torch.testing.assert_close(loss_b.cpu(), loss_a, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gpu.values.cpu(), cpu.values, rtol=1e-3, atol=2e-4)
    assert int(b.step) == int(a.step) == 3


@pytest.mark.parametrize("hidden", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layers", [1, 3])
def test_lightgcn_growth_scores(layers: int, hidden: torch.dtype) -> None:
    cpu, gpu = both("bits", 33)
    graph, triples = graph_of(), random_triples(500, USERS, ROWS - USERS, seed=1)
    options = {"layers": layers, "limit": 200, "hidden": hidden}
    _, scores = ops.lightgcn_grow_scores(cpu, graph, *triples, **options)
    keys, theirs = ops.lightgcn_grow_scores(gpu, graph.to("cuda"), *(t.cuda() for t in triples), **options)
    assert bool((keys.diff() > 0).all())
    assert not bool(gpu.mask().view(-1)[keys].any())
    loose = 1e-4 if hidden == torch.float32 else 2e-2
    torch.testing.assert_close(theirs.cpu().sort().values, scores.sort().values, rtol=loose, atol=1e-8)


def seen_by(users: int, items: int) -> tuple[Tensor, Tensor]:
    seen = random_interactions(users, items, 0.2, seed=3)
    return torch.from_numpy(seen.indptr), torch.from_numpy(seen.items)


@pytest.mark.parametrize("k", [1, 20, 100, 6_000])
@pytest.mark.parametrize(("users", "items", "dim"), [(7, 5_003, 64), (1_000, 5_003, 64), (300, 999, 7), (70, 300, 500)])
def test_rank_is_exact_on_whole_numbers(users: int, items: int, dim: int, k: int) -> None:
    """Sums are exact whatever their order, and ties are many: the same lists as on the CPU."""
    rng = torch.Generator().manual_seed(k)
    rows = [torch.randint(-3, 4, (count, dim), generator=rng).float() for count in (users, items)]
    seen = seen_by(users, items)
    want = ops.rank(*rows, *seen, k)
    found = ops.rank(*(row.cuda() for row in rows), *(part.cuda() for part in seen), k)
    assert torch.equal(found[0].cpu(), want[0])
    assert torch.equal(found[1].cpu(), want[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_rank_packed(kind: str, dim: int, dtype: torch.dtype) -> None:
    cpu, gpu = both(kind, dim, dtype)
    users = torch.arange(USERS)
    seen = seen_by(USERS, ROWS - USERS)
    on_device = [tensor.cuda() for tensor in (users, *seen)]
    found = ops.rank_packed(gpu, *on_device, 20, item_offset=USERS)
    dense = gpu.to_dense().float()
    same = ops.rank(dense[:USERS], dense[USERS:].contiguous(), *on_device[1:], 20)
    assert all(torch.equal(a, b) for a, b in zip(found, same, strict=True))
    close(found[1], ops.rank_packed(cpu, users, *seen, 20, item_offset=USERS)[1])
    three_times(lambda: ops.rank_packed(gpu, *on_device, 20, item_offset=USERS)[1])


def test_a_row_that_cannot_be_ranked_is_named() -> None:
    items = torch.ones(500, 20, device="cuda")
    items[321, 3] = float("nan")
    nothing = torch.zeros(6, dtype=torch.int64).cuda(), torch.zeros(0, dtype=torch.int32).cuda()
    lists = ops.rank(torch.ones(5, 20).cuda(), items, *nothing, 5)
    with pytest.raises(ValueError, match="rank: item row 321 holds NaN"):
        ops.raise_device_errors(lists[0])


def three_times(run: Callable[[], Tensor]) -> None:
    first = run()
    assert all(same_bits(run(), first) for _ in range(2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_same_bits_three_times(name: str) -> None:
    def run() -> Tensor:
        table = both("bits", 64)[1]
        trained(table, name, 1_000)
        return table.values

    three_times(run)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lightgcn_has_the_same_bits_three_times(name: str) -> None:
    def run() -> Tensor:
        table = both("bits", 64)[1]
        lightgcn_trained(table, graph_of(density=1.0), name, 3)
        return table.values

    three_times(run)


def test_a_captured_lightgcn_step_is_the_step() -> None:
    eager, captured = both("bits", 64)[1], both("bits", 64)[1]
    graph, triples = graph_of().to("cuda"), [t.cuda() for t in random_triples(600, USERS, ROWS - USERS, seed=1)]
    optimizers = [OPTIMIZERS["adam"](table, lr=0.01) for table in (eager, captured)]

    def step(table: PackedTable, optimizer: TableOptimizer) -> Tensor:
        return ops.lightgcn_step_(table, optimizer, graph, *triples, layers=3, batch_size=256)

    before = captured.values.clone(), optimizers[1].state.clone(), optimizers[1].step.clone()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step(captured, optimizers[1])  # what is made on first use is made now
    torch.cuda.synchronize()
    for tensor, old in zip((captured.values, optimizers[1].state, optimizers[1].step), before, strict=True):
        tensor.copy_(old)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        step(captured, optimizers[1])
    for _ in range(2):
        step(eager, optimizers[0])
        recorded.replay()
    torch.cuda.synchronize()
    assert same_bits(captured.values, eager.values)
    assert int(optimizers[1].step) == int(optimizers[0].step) == 6


def test_a_captured_step_is_the_step() -> None:
    """No allocation outside torch's pool, no synchronisation: the graph replays what ran eagerly."""
    eager, captured = both("bits", 64)[1], both("bits", 64)[1]
    triples = [t.cuda() for t in random_triples(2_000, USERS, ROWS - USERS, seed=1)]
    optimizers = [OPTIMIZERS["adam"](table, lr=0.01) for table in (eager, captured)]

    def step(table: PackedTable, optimizer: TableOptimizer) -> Tensor:
        return ops.bpr_step_(table, optimizer, *triples, item_offset=USERS, batch_size=512)

    before = captured.values.clone(), optimizers[1].state.clone(), optimizers[1].step.clone()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step(captured, optimizers[1])  # what is made on first use is made now
    torch.cuda.synchronize()
    for tensor, old in zip((captured.values, optimizers[1].state, optimizers[1].step), before, strict=True):
        tensor.copy_(old)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(captured, optimizers[1])
    for _ in range(3):
        step(eager, optimizers[0])
        graph.replay()
    torch.cuda.synchronize()
    assert same_bits(captured.values, eager.values)
    assert int(optimizers[1].step) == int(optimizers[0].step) == 12


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_a_run_trains_and_is_evaluated_on_the_device(model: str, tmp_path: Path) -> None:
    first = {}
    for device in ("cpu", "cuda"):
        settings = small_runs.config("dsl", model=model, epochs=4, every="5 steps", device=device)
        trainer = small_runs.trainer(tmp_path, settings, device)
        trainer.train()
        rows = [row for row in trainer.run_folder.rows() if row["event"] == "epoch"]
        assert trainer.stage.table.values.device.type == device
        assert rows[-1]["loss"] < rows[0]["loss"]
        assert rows[-1]["valid_recall@20"] > 0.6  # 0.3 by chance
        first[device] = rows[0]["loss"]
    assert first["cuda"] == pytest.approx(first["cpu"], rel=1e-3)


def test_values_beyond_2_to_31() -> None:
    """Rows whose values start beyond 2^31 are read and updated where they are: 4.4 GB of bfloat16."""
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("less than 12 GB of GPU memory are free")
    rows, dim = (1 << 31) // 256 + 100_000, 256
    options = {"kind": "full", "capacity": rows * dim, "start": "full", "dtype": torch.bfloat16}
    table = PackedTable.init(rows, dim, **options, device="cuda")
    ids = torch.arange(rows - 5, rows)
    before = table.values[-5 * dim :].float().view(5, dim)
    assert torch.equal(ops.lookup(table, ids.cuda()).float(), before)
    optimizer = OPTIMIZERS["sgd"](table, lr=0.5)
    optimizer.update_rows(ids.cuda(), torch.ones(5, dim, device="cuda"))
    after = table.values[-5 * dim :].float().view(5, dim)
    torch.testing.assert_close(after, before - 0.5, rtol=2e-2, atol=1e-2)
    assert bool((table.values[: 10 * dim].float().abs() < 0.2).all())


def test_a_bad_id_is_raised_when_the_device_is_waited_for() -> None:
    table = both("bits", 33)[1]
    ids = torch.arange(10, device="cuda")
    ids[4] = ROWS
    rows = ops.lookup(table, ids)
    assert same_bits(rows[4], table.to_dense()[0])
    with pytest.raises(IndexError, match=rf"lookup: ids\[4\] = {ROWS} is out of range"):
        ops.raise_device_errors(table.values)
    ops.raise_device_errors(table.values)  # once
