"""bpr_step_ in Triton against the native op: the same mini-batches, the same duplicates, the same random bits."""

from __future__ import annotations

import pytest
import torch
from strategies import DTYPES, KINDS, random_table, random_triples, same_bits
from torch import Tensor
from triton_tables import DEVICE, INTERPRETED, on_device, on_triton, pair

from recsparse import ops
from recsparse.optim import OPTIMIZERS, Adam
from recsparse.reference.rounding import round_stochastic, rounding_bits
from recsparse.table import PackedTable

USERS, ITEMS = 40, 50
ROWS = USERS + ITEMS


def train(
    table: PackedTable, triples: tuple[Tensor, ...], name: str = "adam", *, batch_size: int = 32, **options: float
):
    optimizer = OPTIMIZERS[name](table, lr=0.01, weight_decay=options.pop("weight_decay", 0.0))
    triples = tuple(tensor.to(table.values.device) for tensor in triples)
    loss = ops.bpr_step_(
        table, optimizer, *triples, item_offset=USERS, batch_size=batch_size, **{"l2": 0.02, **options}
    )
    return optimizer, loss


def assert_close(kind: str, dim: int, triples: tuple[Tensor, ...], name: str = "adam", **options: float) -> None:
    tables = pair(kind, ROWS, dim, seed=dim, scale=0.3, slack=0 if kind == "full" else 5)
    before = tables[0].values.clone()
    (native, want), (triton, loss) = (train(table, triples, name, **options) for table in tables)
    torch.testing.assert_close(loss.cpu(), want, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(triton.state.cpu(), native.state, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(tables[1].values.cpu(), tables[0].values, rtol=1e-5, atol=1e-5)
    assert int(triton.step) == int(native.step) == len(want)
    assert bool((tables[0].values != before).any()) == (len(want) > 0)
    tables[1].check_invariants()
    triton.check_invariants()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 33, 64, 256])
def test_equals_the_native_op(kind: str, dim: int) -> None:
    """Two whole mini-batches and a last one of 4; some rows are empty, some full, some come twice in a batch."""
    assert_close(kind, dim, random_triples(68, USERS, ITEMS, seed=dim))


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
def test_every_optimiser(kind: str, name: str) -> None:
    assert_close(kind, 100, random_triples(64, USERS, ITEMS, seed=3), name, weight_decay=0.1)


@pytest.mark.parametrize("name", ["adam", "rowwise_adagrad"])
def test_rows_that_occur_in_most_triples(name: str) -> None:
    """More than 64 times in a mini-batch: a program of its own; and just as often."""
    assert_close("bits", 64, random_triples(330, USERS, ITEMS, hot=3), name, batch_size=256)
    users, pos, neg = random_triples(200, USERS, ITEMS, seed=2)
    users[:64], pos[70:135] = 5, 5
    assert_close("bits", 64, (users, pos, neg), name, batch_size=200)


@pytest.mark.parametrize(("n", "batch_size"), [(5, 1), (1, 1), (7, 100), (0, 4)])
def test_sizes_of_mini_batches(n: int, batch_size: int) -> None:
    assert_close("bits", 64, random_triples(n, USERS, ITEMS, seed=n), batch_size=batch_size)


def test_positive_equal_to_negative() -> None:
    users, pos, _ = random_triples(40, USERS, ITEMS)
    assert_close("cols8", 33, (users, pos, pos), l2=1.0)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_16_bit_weights_round_with_the_bits_of_the_reference(dtype: torch.dtype, name: str) -> None:
    """A float32 table makes the same step; its result, rounded by the reference, is what the 16-bit table holds."""
    small = on_triton(random_table("bits", ROWS, 33, scale=0.3, dtype=dtype))
    if dtype == torch.float16:
        small.values.view(torch.int16)[::7] &= -0x7E01  # below the normal halves
    wide = PackedTable(ROWS, 33, "bits", small.index, small.cols, small.values.float(), "triton")
    triples = on_device(*random_triples(60, USERS, ITEMS, seed=4))
    for table in (small, wide):
        optimizer = OPTIMIZERS[name](table, lr=0.01, seed=7)
        optimizer.step += 2**33
        ops.bpr_step_(table, optimizer, *triples, item_offset=USERS, batch_size=60)
    mask = random_table("bits", ROWS, 33, scale=0.3, dtype=dtype).mask()
    random = rounding_bits(7, 2**33 + 1, torch.arange(ROWS)[:, None], mask.cumsum(1) - 1)[mask]
    touched = torch.zeros(ROWS, dtype=torch.bool)
    touched[torch.cat([triples[0], USERS + triples[1], USERS + triples[2]]).cpu()] = True
    changed = touched[:, None].expand_as(mask)[mask]
    exact = wide.values[: wide.nnz].cpu()
    want = torch.where(changed, round_stochastic(exact, dtype, random), exact.to(dtype))
    assert same_bits(small.values[: small.nnz].cpu(), want)
    assert bool((want.float() != exact).any())


def test_the_same_bits_each_time() -> None:
    results = []
    for _ in range(3):
        table = on_triton(random_table("bits", ROWS, 64, scale=0.3))
        train(table, random_triples(150, USERS, ITEMS, hot=2), batch_size=128)
        results.append(table.values.cpu())
    assert all(same_bits(results[0], other) for other in results[1:])


def test_scores_too_large_for_exp_and_nan() -> None:
    """A lost pair costs its score difference, a diverged weight makes the loss NaN."""
    dense = torch.full((ROWS, 8), 10.0)
    dense[USERS + 1] = -10.0
    table = on_triton(PackedTable.from_dense(dense, kind="full"))
    one = torch.zeros(1, dtype=torch.int64)
    assert float(train(table, (one, one + 1, one), l2=0.0)[1]) == 1600
    table.values[0] = float("nan")
    assert bool(train(table, (one, one, one + 2))[1].isnan())


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU a bad id is a device-side assertion, which ends the process")
def test_a_bad_id_is_named_and_nothing_changes() -> None:
    table = pair("bits", ROWS, 33)[1]
    before = table.values.clone()
    for at, limit in ((0, USERS), (1, ITEMS), (2, ITEMS)):
        triples = list(random_triples(20, USERS, ITEMS))
        triples[at][13] = limit
        name = ("users", "pos", "neg")[at]
        with pytest.raises(IndexError, match=rf"bpr_step_: {name}\[13\] = {limit} is out of range, expected 0\.\."):
            train(table, tuple(triples))
    assert same_bits(table.values, before)


def test_a_step_can_be_captured_in_a_graph() -> None:
    if INTERPRETED:
        pytest.skip("graphs are for GPUs")
    table = on_triton(random_table("bits", ROWS, 64, scale=0.3))
    eager = on_triton(random_table("bits", ROWS, 64, scale=0.3))
    triples = on_device(*random_triples(64, USERS, ITEMS))
    optimizer, other = Adam(table), Adam(eager)
    ops.bpr_step_(eager, other, *triples, item_offset=USERS, batch_size=32)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ops.bpr_step_(table, optimizer, *triples, item_offset=USERS, batch_size=32)
    graph.replay()
    torch.cuda.synchronize(DEVICE)
    assert same_bits(table.values, eager.values)
    assert int(optimizer.step) == 2
