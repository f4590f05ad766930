"""Optimisers of a table: where their state lies, its bytes, saving, damage; and the three forms of a gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from strategies import KINDS, random_table, random_triples, same_bits
from torch import Tensor

from recsparse import InvariantError, ops
from recsparse.optim import OPTIMIZERS, SGD, Adagrad, Adam, RowWiseAdagrad, TableOptimizer
from recsparse.table import PackedTable

CLASSES = tuple(OPTIMIZERS.values())
WITH_STATE = (Adam, Adagrad, RowWiseAdagrad)
NAMES = [each.name for each in CLASSES]


def copy_of(table: PackedTable) -> PackedTable:
    return PackedTable(table.rows, table.dim, table.kind, *(tensor.clone() for tensor in table.state_dict().values()))


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_and_place_of_the_state(kind: str) -> None:
    table = random_table(kind, 40, 33, slack=3)
    sizes = {each.name: each(table).nbytes() for each in CLASSES}
    capacity = table.capacity
    assert sizes == {"adam": 8 * capacity, "adagrad": 4 * capacity, "rowwise_adagrad": 4 * 40, "sgd": 0}
    optimizer = Adam(table)
    optimizer.moments[:] = torch.arange(2 * capacity)
    first, second = optimizer.split()
    assert torch.equal(first, 2.0 * torch.arange(table.nnz))
    assert torch.equal(second, 2.0 * torch.arange(table.nnz) + 1)


def test_the_initial_sum_is_that_of_kept_weights() -> None:
    table = random_table("bits", 40, 33, slack=3)
    optimizer = Adagrad(table, initial_accumulator_value=0.25)
    assert torch.equal(optimizer.sums[: table.nnz], torch.full((table.nnz,), 0.25))
    optimizer.check_invariants()


@pytest.mark.parametrize("cls", CLASSES, ids=NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_from_a_saved_state_bit_for_bit(cls: type[TableOptimizer], kind: str) -> None:
    table, other = (random_table(kind, 40, 33, scale=0.3, slack=0 if kind == "full" else 3) for _ in range(2))
    optimizer, other_optimizer = cls(table, lr=0.01), cls(other, lr=0.01)
    first, second = random_triples(50, 15, 25, seed=1), random_triples(50, 15, 25, seed=2)
    ops.bpr_step_(table, optimizer, *first, item_offset=15, batch_size=16)
    state = {key: value.clone() for key, value in optimizer.state_dict().items()}
    other.load_state_dict({key: value.clone() for key, value in table.state_dict().items()})
    address = other_optimizer.state.data_ptr()
    other_optimizer.load_state_dict(state)
    assert (int(other_optimizer.step), other_optimizer.state.data_ptr()) == (4, address)
    losses = [
        ops.bpr_step_(*pair, *second, item_offset=15, batch_size=16)
        for pair in ((table, optimizer), (other, other_optimizer))
    ]
    assert same_bits(*losses)
    assert same_bits(table.values, other.values)
    assert same_bits(optimizer.state, other_optimizer.state)
    optimizer.check_invariants()


@pytest.mark.parametrize("wrong", [torch.zeros(5), torch.zeros(2, 660), torch.zeros(1320, dtype=torch.float64), None])
def test_state_of_another_shape_is_refused(wrong: Tensor | None) -> None:
    optimizer = Adam(random_table("full", 20, 33))
    with pytest.raises(ValueError, match=r"moments: found .*, expected torch.float32 \[1320\]"):
        optimizer.load_state_dict({"moments": wrong, "step": torch.ones(1, dtype=torch.int64)})
    assert int(optimizer.step) == 0


@pytest.mark.parametrize("cls", WITH_STATE, ids=[each.name for each in WITH_STATE])
@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("used", float("nan"), "is nan, expected a finite number"),
        ("used", float("inf"), "is inf, expected a finite number"),
        ("used", -1.0, "has a negative sum of squares"),
        ("slack", 1e-30, "lies behind the kept weights and is not zero"),
    ],
)
def test_damaged_state_is_named(cls: type[TableOptimizer], where: str, value: float, message: str) -> None:
    table = random_table("bits", 40, 33, density=0.5, slack=3)
    optimizer = cls(table)
    per_weight = cls.floats_per_weight
    if where == "slack" and per_weight == 0:
        return
    optimizer.check_invariants()
    optimizer.state[per_weight * table.nnz + 1 if where == "slack" else 5 * max(1, per_weight) - 1] = value
    with pytest.raises(InvariantError, match=message):
        optimizer.check_invariants()


def test_first_moments_may_be_negative() -> None:
    optimizer = Adam(random_table("bits", 40, 33))
    optimizer.moments[0] = -1.0
    optimizer.check_invariants()


@pytest.mark.parametrize(
    ("cls", "change"),
    [
        (Adam, {"lr": 0.0}),
        (Adam, {"lr": -1e-3}),
        (Adam, {"lr": float("nan")}),
        (Adam, {"eps": 0.0}),
        (Adam, {"weight_decay": -1.0}),
        (Adam, {"betas": (1.0, 0.999)}),
        (Adam, {"betas": (0.9, -0.1)}),
        (Adam, {"betas": (0.9, float("nan"))}),
        (Adagrad, {"initial_accumulator_value": -1.0}),
        (RowWiseAdagrad, {"eps": 0.0}),
        (SGD, {"lr": 0.0}),
    ],
)
def test_impossible_hyper_parameters_are_refused(cls: type[TableOptimizer], change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must (be|lie)"):
        cls(random_table("bits", 4, 3), **change)


def test_hyper_parameters_reach_the_update() -> None:
    """One step of Adam from zero moments moves each weight by lr * g / (|g| + eps / sqrt(1 - beta2)) exactly."""
    table = random_table("full", 6, 3)
    before = table.to_dense()
    optimizer = Adam(table, lr=0.05, betas=(0.5, 0.75), eps=0.2)
    users, pos, neg = (torch.tensor([x]) for x in (1, 0, 2))
    ops.bpr_step_(table, optimizer, users, pos, neg, item_offset=3, batch_size=1)
    u, i, j = before[1], before[3], before[5]
    sigmoid = (u @ j - u @ i).sigmoid()
    for row, g in ((1, sigmoid * (j - i)), (3, -sigmoid * u), (5, sigmoid * u)):
        step = 0.05 * g / (g.abs() + 0.2 / 0.25**0.5)
        torch.testing.assert_close(table.to_dense()[row], before[row] - step)
    first, second = optimizer.split()
    torch.testing.assert_close(first[3:6], 0.5 * sigmoid * (j - i))
    torch.testing.assert_close(second[3:6], 0.25 * (sigmoid * (j - i)).square())


@pytest.mark.parametrize("cls", CLASSES, ids=NAMES)
@pytest.mark.parametrize("lazy", [False, True])
def test_the_forms_of_a_gradient_agree(cls: type[TableOptimizer], lazy: bool) -> None:
    """All rows by id, the dense gradient and its kept columns: one update, bit for bit."""
    table = random_table("bits", 50, 33, slack=3)
    dense = torch.randn(50, 33)
    packed = torch.zeros(table.capacity)
    packed[: table.nnz] = dense[table.mask()]
    results = []
    for method, arguments in (
        ("update_rows", (torch.arange(50), dense)),
        ("update_dense", (dense,)),
        ("update_packed", (packed,)),
    ):
        other = copy_of(table)
        optimizer = cls(other, lr=0.05, weight_decay=0.1, lazy=lazy)
        getattr(optimizer, method)(*arguments)
        optimizer.check_invariants()
        assert int(optimizer.step) == 1
        results.append((other.values, optimizer.state))
    for values, state in results[1:]:
        assert same_bits(values, results[0][0])
        assert same_bits(state, results[0][1])


@pytest.mark.parametrize("cls", CLASSES, ids=NAMES)
@pytest.mark.parametrize("kind", ["bits", "cols8"])
def test_state_follows_its_weights_through_prune_regrow(cls: type[TableOptimizer], kind: str) -> None:
    """State is set to what the weight is, so that it tells which weight it belongs to."""
    table = random_table(kind, 60, 33, density=0.4, slack=40)
    optimizer = cls(table)
    if optimizer.floats_per_weight:
        state = optimizer.state.view(-1, optimizer.floats_per_weight)
        state[: table.nnz] = table.values[: table.nnz, None].square()
    keys = (~table.mask()).view(-1).nonzero()[:100, 0]
    counts = ops.prune_regrow_(table, optimizer.weight_state, keys, torch.rand(100), drop=70, grow=100)
    assert counts == (70, 100)
    optimizer.check_invariants()
    if optimizer.floats_per_weight:
        expected = table.values[: table.nnz, None].square().expand(-1, optimizer.floats_per_weight)
        assert torch.equal(state[: table.nnz], expected)
