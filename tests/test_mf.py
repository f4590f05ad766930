"""Matrix factorisation that moves all kept weights in every step, and learning rates that fall."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import small_runs
import torch
from strategies import KINDS, random_case
from torch.nn.functional import softplus

from recsparse import policies
from recsparse.config import OptimConfig, validate
from recsparse.errors import UserError
from recsparse.models import MatrixFactorisation, Triples
from recsparse.models.base import mean_in_order
from recsparse.optim import SGD, Adagrad, Adam
from recsparse.table import PackedTable
from recsparse.train import learning_rate

USERS, ITEMS, DIM, BATCH = 40, 30, 20, 32


def triples(steps: int = 50) -> Triples:
    rng = torch.Generator().manual_seed(0)
    return Triples(*(torch.randint(0, n // 2, (steps * BATCH,), generator=rng) for n in (USERS, ITEMS, ITEMS)))


@pytest.mark.parametrize("kind", KINDS)
def test_fifty_steps_equal_torch_adam_on_the_masked_weight(kind: str) -> None:
    """Half of the rows are in no mini-batch after a while: their moments go on moving them."""
    dense, mask = random_case(kind, USERS + ITEMS, DIM, seed=1, scale=0.3)
    table = PackedTable.from_dense(dense, mask, kind=kind)
    model, given = MatrixFactorisation(USERS, ITEMS, 0.01), triples()
    weight = (dense * mask).requires_grad_()
    theirs = torch.optim.Adam([weight], lr=0.01)
    wanted = []
    for batch in given.batches(BATCH):
        user, positive, negative = (
            (weight * mask)[ids] for ids in (batch.users, batch.positives + USERS, batch.negatives + USERS)
        )
        loss = softplus((user * (negative - positive)).sum(1)).mean()
        penalty = sum(part.square().sum() for part in (user, positive, negative)) * 0.01 / 2 / BATCH
        theirs.zero_grad()
        (loss + penalty).backward()
        theirs.step()
        wanted.append(loss.detach())
    losses = model.train_(table, Adam(table, lr=0.01, lazy=False), given, BATCH)
    torch.testing.assert_close(losses, torch.stack(wanted), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(table.to_dense(), (weight * mask).detach(), rtol=1e-4, atol=1e-5)


def test_same_bits_for_any_number_of_threads() -> None:
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        table = PackedTable.init(3_000, 64, kind="bits", capacity=40_000, std=0.1)
        rng = torch.Generator().manual_seed(0)
        given = Triples(*(torch.randint(0, 1_500, (120_000,), generator=rng) for _ in range(3)))
        losses = MatrixFactorisation(1_500, 1_500, 0.01).train_(table, Adam(table, lazy=False), given, 60_000)
        found.append((losses, table.values))
    torch.set_num_threads(before)
    for losses, values in found[1:]:
        assert torch.equal(losses, found[0][0])
        assert torch.equal(values, found[0][1])


@pytest.mark.parametrize("cls", [SGD, Adagrad])
def test_of_the_others_both_ways_are_the_same(cls: type) -> None:
    """A gradient of zero moves nothing."""
    found = []
    for lazy in (True, False):
        table = PackedTable.init(USERS + ITEMS, DIM, kind="bits", capacity=400, std=0.3)
        MatrixFactorisation(USERS, ITEMS, 0.01).train_(table, cls(table, lr=0.1, lazy=lazy), triples(5), BATCH)
        found.append(table.values)
    assert torch.equal(*found)


@pytest.mark.parametrize("count", [1, 2, 64, 65, 5_000])
def test_the_mean_in_a_fixed_order(count: int) -> None:
    values = torch.rand(count, generator=torch.Generator().manual_seed(count))
    assert float(mean_in_order(values)) == pytest.approx(float(values.double().mean()), rel=1e-6)


def test_learning_rates() -> None:
    constant, cosine = OptimConfig(lr=0.1), OptimConfig(lr=0.1, schedule="cosine", lr_end=0.02)
    assert [learning_rate(constant, epoch, 5, 0.0) for epoch in range(5)] == [0.1] * 5
    assert [learning_rate(cosine, epoch, 5, 0.0) for epoch in range(5)] == pytest.approx(
        [0.1, 0.06 + 0.04 * 0.5**0.5, 0.06, 0.06 - 0.04 * 0.5**0.5, 0.02]
    )
    assert learning_rate(cosine, 0, 1, 0.0) == 0.1
    assert learning_rate(cosine, 9, 5, 0.0) == pytest.approx(0.02)  # a run that was made longer and shorter again
    assert [learning_rate(cosine, epoch, 3, 0.01) for epoch in range(3)] == pytest.approx([0.01] * 3)  # of a stage


def test_a_run_follows_its_schedule_and_moves_all_rows(tmp_path: Path) -> None:
    settings = small_runs.config("dense", epochs=3)
    optim = dataclasses.replace(settings.optim, schedule="cosine", lr_end=1e-3, lazy=False)
    trainer = small_runs.trainer(tmp_path, policies.resolve(dataclasses.replace(settings, optim=optim)))
    trainer.train()
    assert trainer.stage.optimizer.lr == pytest.approx(1e-3)
    assert trainer.stage.optimizer.lazy is False


def test_an_end_above_the_start_is_a_mistake() -> None:
    settings = small_runs.config("dense")
    with pytest.raises(UserError, match=r"optim\.lr_end is 1; it must be from 0 to optim\.lr"):
        validate(dataclasses.replace(settings, optim=dataclasses.replace(settings.optim, lr_end=1)))
