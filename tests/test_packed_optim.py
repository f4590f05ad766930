"""The torch optimisers over packed parameters: equal to torch's on the masked dense weight, and ordinary Optimizers."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from strategies import random_table, same_bits
from torch import Tensor, nn

from recsparse import ops
from recsparse.optim import PackedAdagrad, PackedAdam, PackedRowWiseAdagrad, PackedSGD
from recsparse.table import PackedTable

PEERS = [(PackedAdam, torch.optim.Adam), (PackedAdagrad, torch.optim.Adagrad), (PackedSGD, torch.optim.SGD)]
ALL = [PackedAdam, PackedAdagrad, PackedRowWiseAdagrad, PackedSGD]


def make_parameter(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[nn.Parameter, PackedTable]:
    table = random_table("bits", 40, 33, scale=0.1, slack=3, seed=seed, dtype=dtype)
    parameter = nn.Parameter(table.values)
    parameter.packed_table = table
    return parameter, table


def loss_of(weight: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids, target = torch.randint(0, 40, (30,), generator=generator), torch.randn(30, 33, generator=generator)
    return (weight[ids] - target.to(weight.dtype)).square().sum()


def packed_loss(parameter: nn.Parameter, table: PackedTable, seed: int) -> Tensor:
    view = PackedTable(40, 33, "bits", table.index, table.cols, parameter)
    return loss_of(ops.lookup(view, torch.arange(40)), seed)


@pytest.mark.parametrize(("cls", "peer"), PEERS)
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_equal_to_torch_with_a_scheduler_over_100_steps(cls: Any, peer: Any, decay: float) -> None:
    parameter, table = make_parameter()
    mask = table.mask()
    weight = table.to_dense().double().requires_grad_()
    optimizer, other = cls([parameter], lr=1e-3, weight_decay=decay), peer([weight], lr=1e-3, weight_decay=decay)
    schedules = [torch.optim.lr_scheduler.ExponentialLR(each, 0.98) for each in (optimizer, other)]
    for step in range(100):
        optimizer.zero_grad()
        packed_loss(parameter, table, step).backward()
        optimizer.step()
        other.zero_grad()
        loss_of(weight * mask, step).backward()
        other.step()
        for schedule in schedules:
            schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.98**100)
    torch.testing.assert_close(table.to_dense(), weight.detach().float() * mask, rtol=0, atol=2e-6)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_goes_on_bit_for_bit(cls: Any, dtype: torch.dtype) -> None:
    (parameter, table), (copy, copy_table) = make_parameter(dtype=dtype), make_parameter(dtype=dtype)
    optimizer, other = cls([parameter], lr=0.01), cls([copy], lr=0.5)
    for step in range(3):
        packed_loss(parameter, table, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    copy.data.copy_(parameter.data)
    for each, own, its_table in ((optimizer, parameter, table), (other, copy, copy_table)):
        packed_loss(own, its_table, 9).backward()
        each.step()
    assert other.param_groups[0]["lr"] == 0.01
    assert same_bits(parameter.detach().float(), copy.detach().float())
    for mine, theirs in zip(optimizer.state[parameter].values(), other.state[copy].values(), strict=True):
        assert same_bits(mine, theirs)
        assert mine.dtype in (torch.float32, torch.int64)


def test_groups_have_their_own_rate_and_a_parameter_without_gradient_stays() -> None:
    (first, one), (second, two), (third, three) = (make_parameter(seed) for seed in range(3))
    optimizer = PackedSGD([{"params": [first], "lr": 0.5}, {"params": [second, third]}], lr=0.25)
    before = [table.values.clone() for table in (one, two, three)]
    first.grad, second.grad = torch.ones_like(first), torch.ones_like(second)
    optimizer.step()
    moved = [(old - table.values)[: table.nnz] for old, table in zip(before, (one, two, three), strict=True)]
    torch.testing.assert_close(moved[0], torch.full_like(moved[0], 0.5))
    torch.testing.assert_close(moved[1], torch.full_like(moved[1], 0.25))
    assert not moved[2].any()


def test_the_closure_is_called() -> None:
    parameter, table = make_parameter()
    optimizer = PackedAdam([parameter])

    def closure() -> float:
        loss = packed_loss(parameter, table, 0)
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) > 0
    assert int(optimizer.state[parameter]["step"]) == 1


@pytest.mark.parametrize("cls", ALL)
def test_a_parameter_without_a_table_is_refused(cls: Any) -> None:
    parameter, table = make_parameter()
    with pytest.raises(ValueError, match=r"parameter 1 of shape \[3\] has no `packed_table`"):
        cls([parameter, nn.Parameter(torch.zeros(3))])
    parameter.packed_table = PackedTable(40, 33, "bits", table.index, table.cols, table.values.clone())
    with pytest.raises(ValueError, match="not the same memory"):
        cls([parameter])


@pytest.mark.parametrize(
    ("cls", "change"),
    [
        (PackedAdam, {"lr": -1.0}),
        (PackedAdam, {"betas": (1.0, 0.9)}),
        (PackedAdam, {"eps": 0.0}),
        (PackedAdagrad, {"initial_accumulator_value": -1.0}),
        (PackedRowWiseAdagrad, {"weight_decay": -1.0}),
        (PackedSGD, {"lr": float("nan")}),
    ],
)
def test_impossible_hyper_parameters_are_refused(cls: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is out of range"):
        cls([make_parameter()[0]], **change)
