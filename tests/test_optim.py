"""LazyAdam: where the moments lie, their bytes, state and damage."""

from __future__ import annotations

import pytest
import torch
from strategies import KINDS, random_table, random_triples, same_bits

from recsparse import InvariantError, ops
from recsparse.optim import LazyAdam


@pytest.mark.parametrize("kind", KINDS)
def test_moments_lie_row_by_row(kind: str) -> None:
    table = random_table(kind, 40, 33, slack=3)
    optimizer = LazyAdam(table)
    assert optimizer.nbytes() == optimizer.moments.nbytes == 8 * table.capacity
    optimizer.moments[:] = torch.arange(2 * table.capacity)
    first, second = optimizer.split()
    start = 0
    for n in table.row_counts().tolist():
        assert first[start : start + n].tolist() == list(range(2 * start, 2 * start + n))
        assert second[start : start + n].tolist() == list(range(2 * start + n, 2 * start + 2 * n))
        start += n
    assert len(first) == len(second) == start


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_from_a_saved_state_bit_for_bit(kind: str) -> None:
    table, other = (random_table(kind, 40, 33, scale=0.3, slack=0 if kind == "full" else 3) for _ in range(2))
    optimizer, other_optimizer = LazyAdam(table), LazyAdam(other)
    first, second = random_triples(50, 15, 25, seed=1), random_triples(50, 15, 25, seed=2)
    ops.bpr_step_(table, optimizer, *first, item_offset=15, batch_size=16)
    state = {key: value.clone() if torch.is_tensor(value) else value for key, value in optimizer.state_dict().items()}
    other.load_state_dict({key: value.clone() for key, value in table.state_dict().items()})
    address = other_optimizer.moments.data_ptr()
    other_optimizer.load_state_dict(state)
    assert (other_optimizer.step, other_optimizer.moments.data_ptr()) == (4, address)
    losses = [
        ops.bpr_step_(*pair, *second, item_offset=15, batch_size=16)
        for pair in ((table, optimizer), (other, other_optimizer))
    ]
    assert same_bits(*losses)
    assert same_bits(table.values, other.values)
    assert same_bits(optimizer.moments, other_optimizer.moments)


@pytest.mark.parametrize("wrong", [torch.zeros(5), torch.zeros(2, 660), torch.zeros(1320, dtype=torch.float64)])
def test_state_of_another_shape_is_refused(wrong: torch.Tensor) -> None:
    optimizer = LazyAdam(random_table("full", 20, 33))
    with pytest.raises(ValueError, match=r"moments: found .*, expected .*\[1320\]"):
        optimizer.load_state_dict({"moments": wrong, "step": 1})
    assert optimizer.step == 0


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("first", float("nan"), "a moment of row 13 is not finite"),
        ("second", float("inf"), "a moment of row 13 is not finite"),
        ("second", -1.0, "a second moment of row 13 is negative"),
        ("first", -1.0, None),
        ("slack", 1e-30, "lies behind the kept weights and is not zero"),
    ],
)
def test_damaged_moments_are_named(kind: str, where: str, value: float, message: str | None, threads: int) -> None:
    table = random_table(kind, 40, 33, density=0.5, slack=3)
    optimizer = LazyAdam(table)
    counts = table.row_counts()
    start, n = int(counts[:13].sum()), int(counts[13])
    assert n > 1
    at = {"first": 2 * start + n - 1, "second": 2 * start + n, "slack": 2 * table.nnz + 5}[where]
    optimizer.moments[at] = value
    if message is None:
        optimizer.check_invariants()
        return
    with pytest.raises(InvariantError, match=message):
        optimizer.check_invariants()


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.0},
        {"lr": -1e-3},
        {"lr": float("nan")},
        {"eps": 0.0},
        {"betas": (1.0, 0.999)},
        {"betas": (0.9, -0.1)},
        {"betas": (0.9, float("nan"))},
    ],
)
def test_impossible_hyper_parameters_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be positive, betas = .* in \[0, 1\)"):
        LazyAdam(random_table("bits", 4, 3), **change)


def test_hyper_parameters_reach_the_update() -> None:
    """One step of Adam from zero moments moves each weight by lr * g / (|g| + eps / sqrt(1 - beta2)) exactly."""
    table = random_table("full", 6, 3)
    before = table.to_dense()
    optimizer = LazyAdam(table, lr=0.05, betas=(0.5, 0.75), eps=0.2)
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
