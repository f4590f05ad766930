"""bpr_step_: against the reference and torch.optim.SparseAdam, and what must not change."""

from __future__ import annotations

import pytest
import torch
from strategies import DIMS, DTYPES, KINDS, random_table, random_triples, same_bits
from torch import Tensor
from torch.nn.functional import softplus

from recsparse import ops
from recsparse.optim import Adam
from recsparse.table import PackedTable

USERS, ITEMS = 40, 50
ROWS = USERS + ITEMS
Triples = tuple[Tensor, Tensor, Tensor]


def copy_of(table: PackedTable, backend: str = "auto") -> PackedTable:
    state = (tensor.clone() for tensor in table.state_dict().values())
    return PackedTable(table.rows, table.dim, table.kind, *state, backend)


def train(
    table: PackedTable, triples: Triples, *, batch_size: int = 32, l2: float = 0.02, lr: float = 0.01
) -> tuple[Adam, Tensor]:
    optimizer = Adam(table, lr=lr)
    loss = ops.bpr_step_(table, optimizer, *triples, item_offset=USERS, batch_size=batch_size, l2=l2)
    table.check_invariants()
    optimizer.check_invariants()
    return optimizer, loss


def assert_like_the_reference(table: PackedTable, triples: Triples, *, batch_size: int = 32, l2: float = 0.02) -> None:
    slow = copy_of(table, "reference")
    before = table.values.clone()
    optimizer, loss = train(table, triples, batch_size=batch_size, l2=l2)
    slow_optimizer, slow_loss = train(slow, triples, batch_size=batch_size, l2=l2)
    torch.testing.assert_close(loss, slow_loss, rtol=2e-6, atol=2e-6)
    (first, second), (slow_first, slow_second) = optimizer.split(), slow_optimizer.split()
    torch.testing.assert_close(first, slow_first, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(second, slow_second, rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(table.values, slow.values, rtol=1e-5, atol=1e-5)
    assert optimizer.step == slow_optimizer.step == loss.numel()
    moved = int((table.values - before).abs().gt(1e-3).sum())
    assert (moved > 0) == (table.nnz > 0)


def table_with_counts(kind: str, counts: list[int], dim: int, *, slack: int = 0) -> PackedTable:
    """Row r keeps counts[r % len] columns, at random but for kind prefix."""
    rng = torch.Generator().manual_seed(dim)
    want = torch.tensor(counts).repeat(ROWS // len(counts) + 1)[:ROWS, None]
    order = torch.rand(ROWS, dim, generator=rng).argsort(1).argsort(1) if kind != "prefix" else torch.arange(dim)
    mask = (order < want).contiguous()
    dense = 0.3 * torch.randn(ROWS, dim, generator=rng)
    return PackedTable.from_dense(dense, mask, kind=kind, capacity=int(mask.sum()) + slack)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_equals_the_reference(kind: str, dim: int) -> None:
    """Three whole mini-batches and a last one of 4; some rows are empty, some full."""
    table = random_table(kind, ROWS, dim, seed=dim, scale=0.3, slack=0 if kind == "full" else 5)
    assert_like_the_reference(table, random_triples(100, USERS, ITEMS, seed=dim))


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
@pytest.mark.parametrize("dim", [33, 64, 100, 128, 256])
@pytest.mark.parametrize(
    "counts",
    [[1, 2, 3], [15], [16], [17], [16, 16, 17], [0, 1, 15, 16, 17, 18, 33]],
    ids=lambda counts: "-".join(map(str, counts)),
)
def test_rows_about_one_vector_long(kind: str, dim: int, counts: list[int]) -> None:
    """Triples of rows of at most 16 kept weights are scored packed, others unpacked."""
    assert_like_the_reference(table_with_counts(kind, counts, dim), random_triples(96, USERS, ITEMS, seed=3))


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
@pytest.mark.parametrize("dim", [64, 100, 256])
def test_rows_much_longer_than_the_mean(kind: str, dim: int, threads: int, poison: None) -> None:
    """Their vectors do not fit in a record and go to the spill area of their chunk of 64 triples."""
    table = table_with_counts(kind, [1, 2, 0, 1, 3, 1, 1, 2, 1, dim], dim, slack=3)
    assert_like_the_reference(table, random_triples(450, USERS, ITEMS, seed=5), batch_size=200)


@pytest.mark.parametrize("kind", KINDS)
def test_repeated_rows_are_summed_before_one_update(kind: str, threads: int) -> None:
    table = random_table(kind, ROWS, 64, scale=0.3)
    assert_like_the_reference(table, random_triples(600, USERS, ITEMS, hot=3), batch_size=256)


@pytest.mark.parametrize("kind", KINDS)
def test_positive_equal_to_negative(kind: str) -> None:
    """Only the regulariser pulls."""
    users, pos, _ = random_triples(64, USERS, ITEMS)
    table = random_table(kind, ROWS, 33, scale=0.3)
    slow = copy_of(table, "reference")
    _, loss = train(table, (users, pos, pos), l2=1.0)
    train(slow, (users, pos, pos), l2=1.0)
    torch.testing.assert_close(loss, torch.full((2,), 2.0).log(), rtol=1e-6, atol=0)
    torch.testing.assert_close(table.values, slow.values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "batch_size"), [(5, 1), (1, 1), (7, 100), (65, 64), (128, 64)])
def test_sizes_of_mini_batches(kind: str, n: int, batch_size: int) -> None:
    table = random_table(kind, ROWS, 64, density=0.2, scale=0.3)
    assert_like_the_reference(table, random_triples(n, USERS, ITEMS, seed=n), batch_size=batch_size)


def test_no_triples() -> None:
    table = random_table("bits", ROWS, 64)
    before = table.values.clone()
    optimizer, loss = train(table, random_triples(0, USERS, ITEMS))
    assert loss.shape == (0,)
    assert optimizer.step == 0
    assert same_bits(table.values, before)


def test_without_kept_weights() -> None:
    table = PackedTable.from_dense(torch.zeros(ROWS, 33), capacity=4)
    _, loss = train(table, random_triples(40, USERS, ITEMS))
    torch.testing.assert_close(loss, torch.full((2,), 2.0).log())


@pytest.mark.parametrize("kind", KINDS)
def test_untouched_rows_and_their_moments_stay(kind: str) -> None:
    table = random_table(kind, ROWS, 64, scale=0.3)
    optimizer, _ = train(table, random_triples(64, USERS, ITEMS, seed=1))
    dense, moments = table.to_dense(), [moment.clone() for moment in optimizer.split()]
    ops.bpr_step_(
        table, optimizer, *random_triples(64, USERS, ITEMS, seed=2, hot=4), item_offset=USERS, batch_size=32, l2=0.1
    )
    cold = torch.ones(ROWS, dtype=torch.bool)
    cold[:4], cold[USERS : USERS + 4] = False, False
    assert torch.equal(table.to_dense()[cold], dense[cold])
    cold_weight = cold[table.mask().nonzero()[:, 0]]
    for now, then in zip(optimizer.split(), moments, strict=True):
        assert torch.equal(now[cold_weight], then[cold_weight])
    assert not torch.equal(table.to_dense()[~cold], dense[~cold])


@pytest.mark.parametrize("kind", KINDS)
def test_200_steps_equal_sparse_adam_on_the_masked_weight(kind: str) -> None:
    dim, batch, l2 = 33, 16, 0.01
    table = random_table(kind, ROWS, dim, scale=0.3)
    mask = table.mask()
    users, pos, neg = random_triples(200 * batch, USERS, ITEMS)
    weight = torch.nn.Embedding(ROWS, dim, sparse=True, dtype=torch.float64)
    weight.weight.data.copy_(table.to_dense())
    peer = torch.optim.SparseAdam(weight.parameters(), lr=1e-3)
    losses = []
    for step in range(200):
        part = slice(step * batch, (step + 1) * batch)
        ids = users[part], USERS + pos[part], USERS + neg[part]
        u, i, j = (weight(rows) * mask[rows] for rows in ids)
        ranking = softplus((u * j).sum(1) - (u * i).sum(1)).mean()
        peer.zero_grad()
        (ranking + l2 / (2 * batch) * (u.square().sum() + i.square().sum() + j.square().sum())).backward()
        peer.step()
        losses.append(ranking.item())
    _, loss = train(table, (users, pos, neg), batch_size=batch, l2=l2, lr=1e-3)
    torch.testing.assert_close(loss, torch.tensor(losses), rtol=0, atol=1e-6)
    torch.testing.assert_close(table.to_dense(), weight.weight.detach().float() * mask, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_call_equals_a_call_for_each_mini_batch(kind: str, threads: int) -> None:
    triples = random_triples(1_950, USERS, ITEMS)
    table = random_table(kind, ROWS, 64, scale=0.3)
    other = copy_of(table)
    optimizer, loss = train(table, triples, batch_size=200)
    other_optimizer, losses = Adam(other, lr=0.01), []
    for begin in range(0, 1_950, 200):
        part = (ids[begin : begin + 200] for ids in triples)
        losses.append(ops.bpr_step_(other, other_optimizer, *part, item_offset=USERS, batch_size=200, l2=0.02))
    assert same_bits(loss, torch.cat(losses))
    assert same_bits(table.values, other.values)
    assert same_bits(optimizer.moments, other_optimizer.moments)
    assert optimizer.step == other_optimizer.step == 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hot", [2, None])
def test_same_bits_for_any_thread_count_and_run(kind: str, hot: int | None) -> None:
    triples = random_triples(5_000, USERS, ITEMS, hot=hot)
    start = random_table(kind, ROWS, 100, scale=0.3)
    results = []
    before = torch.get_num_threads()
    for number in (1, 2, 3, 2):
        torch.set_num_threads(number)
        table = copy_of(start)
        optimizer, loss = train(table, triples, batch_size=700)
        results.append((table.values, optimizer.moments, loss))
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize(("name", "limit"), [("users", USERS), ("pos", ITEMS), ("neg", ITEMS)])
@pytest.mark.parametrize("bad", [-1, None, 2**31, 2**63 - 1, -(2**63)])
def test_a_bad_id_is_named_and_nothing_has_changed(name: str, limit: int, bad: int | None, threads: int) -> None:
    bad = limit if bad is None else bad
    table = random_table("bits", ROWS, 33, scale=0.3)
    optimizer, _ = train(table, random_triples(64, USERS, ITEMS))
    before = table.values.clone(), optimizer.moments.clone()
    triples = dict(zip(("users", "pos", "neg"), random_triples(40_000, USERS, ITEMS), strict=True))
    triples[name][33_333], triples[name][39_999] = bad, bad
    with pytest.raises(IndexError) as caught:
        ops.bpr_step_(table, optimizer, **triples, item_offset=USERS, batch_size=32)
    message = f"bpr_step_: {name}[33333] = {bad} is out of range, expected 0..{limit - 1}"
    assert str(caught.value).splitlines()[0] == message
    assert same_bits(table.values, before[0])
    assert same_bits(optimizer.moments, before[1])
    assert optimizer.step == 2


def test_the_optimizer_of_another_table_is_refused() -> None:
    table = random_table("bits", ROWS, 33)
    with pytest.raises(ValueError, match="the optimizer belongs to another table"):
        ops.bpr_step_(table, Adam(copy_of(table)), *random_triples(4, USERS, ITEMS), item_offset=USERS, batch_size=4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"users": torch.zeros(4, dtype=torch.int32)}, TypeError, "users has dtype Int, expected Long"),
        ({"pos": torch.zeros(8, dtype=torch.int64)[::2]}, ValueError, "pos is not contiguous"),
        ({"neg": torch.zeros(2, 2, dtype=torch.int64)}, ValueError, "neg has shape [2, 2], expected one dimension"),
        ({"neg": torch.zeros(3, dtype=torch.int64)}, ValueError, "users, pos and neg have 4, 4 and 3 entries"),
        ({"pos": torch.zeros(4, dtype=torch.int64, device="meta")}, ValueError, "pos is on meta, expected cpu"),
        ({"batch_size": 0}, ValueError, "batch_size is 0, expected at least 1"),
        ({"batch_size": 2**40}, ValueError, "batch_size 1099511627776 is too large"),
        ({"item_offset": ROWS + 1}, ValueError, f"item_offset is {ROWS + 1}, expected 0..rows = {ROWS}"),
        ({"item_offset": -1}, ValueError, "item_offset is -1"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, object], error: type[Exception], message: str) -> None:
    table = random_table("bits", ROWS, 33)
    ids = {name: torch.zeros(4, dtype=torch.int64) for name in ("users", "pos", "neg")}
    optimizer = Adam(table)
    with pytest.raises(error) as caught:
        ops.bpr_step_(table, optimizer, **{**ids, "item_offset": USERS, "batch_size": 2, **change})
    assert f"bpr_step_: {message}" in str(caught.value)
    assert len(str(caught.value).strip().splitlines()) == 1
    assert optimizer.step == 0


def test_moments_of_another_size_are_refused() -> None:
    table = random_table("bits", ROWS, 33)
    optimizer = Adam(table)
    optimizer.moments = optimizer.moments[:-1]
    with pytest.raises(ValueError, match=r"bpr_step_: state has .* entries, expected .* = 2 \* capacity"):
        ops.bpr_step_(table, optimizer, *random_triples(4, USERS, ITEMS), item_offset=USERS, batch_size=2)


def test_loss_and_gradient_of_extreme_scores() -> None:
    """One column and one triple a mini-batch: users weigh 1, positives 0, negatives x, so s_neg - s_pos = x."""
    x = torch.cat([torch.linspace(-100, 100, 401), torch.tensor([1e-4, -1e-4, 1e-20, 87.3, -87.3, 88.8, -88.8])])
    n = len(x)
    dense = torch.cat([torch.ones(n), torch.zeros(n), x])[:, None]
    table = PackedTable.from_dense(dense, torch.ones(3 * n, 1, dtype=torch.bool), kind="full")
    optimizer = Adam(table)
    ids = torch.arange(n)
    loss = ops.bpr_step_(table, optimizer, ids, ids, n + ids, item_offset=n, batch_size=1)
    exact = torch.logaddexp(x.double(), torch.zeros(n, dtype=torch.float64))
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=2e-38)
    gradient = optimizer.split()[0][:n].double() / (1 - 0.9)
    torch.testing.assert_close(gradient, x.double().sigmoid() * x.double(), rtol=2e-6, atol=2e-36)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(kind: str, dtype: torch.dtype) -> None:
    table = random_table(kind, ROWS, 33, slack=2, dtype=dtype)
    optimizer = Adam(table)
    args = (
        table.values,
        optimizer.moments,
        optimizer.step,
        table.index,
        table.cols,
        *random_triples(20, USERS, ITEMS),
        *table.layout,
    )
    torch.library.opcheck(torch.ops.recsparse.bpr_step_, (*args, USERS, 8, *optimizer.hyper, 0.01, 3))
