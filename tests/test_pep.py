"""PEP: what moves the thresholds, the search against plain torch, exact targets, and retraining from the start."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small_runs
import torch
from interactions import random_interactions
from torch.nn.functional import softplus

from recsparse import policies, reference
from recsparse.budget import TablePlan
from recsparse.checkpoint import load_table
from recsparse.config import Config, PepConfig
from recsparse.errors import UserError
from recsparse.graph import Graph
from recsparse.models import LightGCN, MatrixFactorisation, Model, Triples
from recsparse.optim import Adam
from recsparse.optim.thresholds import ThresholdedAdam, threshold_shape
from recsparse.policies.pep import Search, count_above, largest, ordered
from recsparse.table import PackedTable
from recsparse.train import Interrupted, Trainer

SLOTS = (small_runs.USERS + small_runs.ITEMS) * 16
GRANULARITIES = ["global", "dim", "row", "element"]
FAST = {"start": -8.0, "lr": 0.05, "weight_decay": 0.5, "epochs": 30, "check_every": 5}


def config(model: str = "mf", *, density: float = 0.25, dtype: str = "float32", **options: Any) -> Config:
    """`options` are fields of `PepConfig`."""
    settings = small_runs.config("dense", model=model, epochs=2, dtype=dtype)
    policy = dataclasses.replace(settings.policy, name="pep", density=density, pep=PepConfig(**(FAST | options)))
    # Thresholds end at sigmoid(0) = 0.5: weights must not have outgrown them by then.
    return dataclasses.replace(settings, policy=policy, optim=dataclasses.replace(settings.optim, lr=5e-4))


def steps_to(start: float, goals: list[float]) -> list[int]:
    """Steps of Adam with coupled decay and no gradient of a loss, until a threshold has passed each goal."""
    empty = torch.empty(0, dtype=torch.int64)
    table = PackedTable(1, 1, "full", empty, empty.to(torch.uint8), torch.full((1,), start))
    optimizer, nothing = Adam(table, lr=1e-3, weight_decay=1e-5, lazy=False), torch.zeros(1, 1)
    found, step = [], 0
    while len(found) < len(goals):
        optimizer.update_dense(nothing)
        step += 1
        if float(table.values) >= goals[len(found)]:
            found.append(step)
    return found


def test_thresholds_rise_as_the_published_ones_do() -> None:
    """Steps of lr towards 0, whatever the data: where coupled L2 inside Adam has them in double precision."""
    assert steps_to(-15.0, [-10.0, -7.0, -5.0, -4.6, -3.0]) == pytest.approx([5279, 8612, 10924, 11400, 13385], abs=3)
    # Near 150 neighbouring floats are 1.5 % of a step apart: steps are rounded.
    assert steps_to(-150.0, [-149.0]) == pytest.approx([1000], abs=10)


def parts(model_name: str) -> tuple[Model, Triples]:
    users, items = 30, 20
    train = random_interactions(users, items, 0.2, 3)
    rng = torch.Generator().manual_seed(1)
    triples = Triples(*(torch.randint(0, n, (40 * 16,), generator=rng) for n in (users, items, items)))
    if model_name == "mf":
        return MatrixFactorisation(users, items, 0.01), triples
    return LightGCN(Graph.from_interactions(train, items), 0.01, 2), triples


@pytest.mark.parametrize("model_name", ["mf", "lightgcn"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_forty_steps_equal_plain_torch(granularity: Any, model_name: str) -> None:
    """The published set-up: torch.optim.Adam with weight decay on weights and thresholds alike."""
    model, triples = parts(model_name)
    table = PackedTable.init(model.rows, 8, kind="full", capacity=model.rows * 8, start="full", std=0.5)
    v = table.values.view(model.rows, 8).clone().requires_grad_()
    s = torch.full(threshold_shape(granularity, model.rows, 8), -1.5, requires_grad=True)
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 1e-3, "lazy": False}
    optimizer = ThresholdedAdam(
        table, granularity=granularity, start=-1.5, threshold_lr=0.02, threshold_decay=1e-3, **options
    )
    losses = model.train_rows_(optimizer, triples, 16)

    theirs = torch.optim.Adam([{"params": [v], "lr": 0.01}, {"params": [s], "lr": 0.02}], weight_decay=1e-3)
    matrix = None if isinstance(model, MatrixFactorisation) else model.graph.to_sparse_csr().to_dense()
    for number, batch in enumerate(triples.batches(16)):
        first = out = layer = reference.soft_threshold(v, s)
        for _ in range(0 if matrix is None else 2):
            layer = matrix @ layer
            out = out + layer
        out = out if matrix is None else out / 3
        ids = [batch.users, batch.positives + model.n_users, batch.negatives + model.n_users]
        user, positive, negative = (out[each] for each in ids)
        ranking = softplus((user * (negative - positive)).sum(1)).mean()
        penalty = sum(first[each].square().sum() for each in ids) * 0.01 / 2 / 16
        theirs.zero_grad()
        (ranking + penalty).backward()
        theirs.step()
        assert float(losses[number]) == pytest.approx(float(ranking.detach()), abs=1e-5)
    torch.testing.assert_close(table.values.view_as(v), v.detach(), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(optimizer.thresholds.values.view_as(s), s.detach(), rtol=1e-4, atol=2e-5)


def thresholded(granularity: Any = "element", rows: int = 40, dim: int = 6, seed: int = 0) -> ThresholdedAdam:
    table = PackedTable.init(rows, dim, kind="full", capacity=rows * dim, start="full", std=1.0, seed=seed)
    optimizer = ThresholdedAdam(
        table, granularity=granularity, start=-1.0, threshold_lr=0.1, threshold_decay=1e-3, lr=0.1
    )
    optimizer.thresholds.values.normal_(generator=torch.Generator().manual_seed(seed))
    return optimizer


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_what_stays_has_the_largest_margins(granularity: str) -> None:
    optimizer = thresholded(granularity)
    values, s = optimizer.dense
    margin = (values.abs() - s.sigmoid()).view(-1)
    above = count_above(optimizer)
    assert above == int((margin > 0).sum()) == int((reference.soft_threshold(values, s) != 0).sum())
    for count in (1, above - 5, above, above + 5, 240):  # also some that are below their thresholds
        mask = largest(optimizer, count).view(-1)
        assert int(mask.sum()) == count
        assert set(mask.nonzero()[:, 0].tolist()) == set(margin.topk(count).indices.tolist())


@pytest.mark.parametrize("missing", [0, 1])
def test_a_target_is_met_when_the_count_is_not_above_it(missing: int) -> None:
    optimizer = thresholded()
    saved: list[PackedTable] = []
    above, table = count_above(optimizer), optimizer.table
    stage = Search("search", table, optimizer, 5, 0)
    stage.plans, stage.check_every, stage.trim = [TablePlan("bits", 40, 6, above - missing)], 1, False
    settings = config()
    stage.context = SimpleNamespace(config=settings, save=lambda name, table: saved.append(table))  # type: ignore[assignment]
    stage.prune(1, Triples(*torch.zeros(3, 1, dtype=torch.int64)))
    assert [table.nnz for table in saved] == [above] * (1 - missing)
    assert stage.finished() is not bool(missing)


def test_of_equal_margins_the_first_stay() -> None:
    optimizer = thresholded("global")
    optimizer.table.values[:] = torch.tensor([0.5, -0.5, 0.25]).repeat(80)
    assert largest(optimizer, 100).view(-1).nonzero()[:, 0].tolist() == [i for i in range(240) if i % 3 < 2][:100]


def test_order_of_floats() -> None:
    x = torch.tensor([-3.0, -1e-40, -0.0, 0.0, 1e-40, 2.0, 3e38])
    keys = ordered(x)
    assert keys.tolist() == sorted(keys.tolist())
    assert 0 <= int(keys.min()) <= int(keys.max()) < 2**32


def tickets(trainer: Trainer) -> list[PackedTable]:
    folders = sorted(trainer.run_folder.checkpoint("best").parent.glob("ticket-??"))
    return [load_table(folder) for folder in folders]


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_targets_are_met_to_the_weight_and_retrained_from_the_start(
    tmp_path: Path, granularity: str, model: str
) -> None:
    trainer = small_runs.trainer(tmp_path, config(model, granularity=granularity, targets="0.5, 0.4"))
    final = trainer.train()
    wanted = [round(density * SLOTS) for density in (0.5, 0.4, 0.25)]
    found = tickets(trainer)
    assert [table.nnz for table in found] == wanted
    fresh = PackedTable.init(
        found[0].rows, 16, kind="full", capacity=SLOTS, start="full", std=trainer.config.model.init_std
    ).to_dense()
    for table in found:
        assert torch.equal(table.to_dense(), fresh * table.mask())
    rows = trainer.run_folder.rows()
    stages = [row for row in rows if row["event"] == "stage"]
    assert [row["nnz"] for row in stages] == wanted
    assert final["nnz"] == wanted[-1]
    search = [row for row in rows if row["event"] == "epoch" and row["stage"] == 0]
    assert search[0]["threshold"] < search[-1]["threshold"]
    assert search[-1]["density"] <= 0.25
    assert not any("valid_recall@20" in row for row in search)  # what a search trains is not what is served
    most = {"element": 24.0, "row": 13.0, "dim": 12.2, "global": 12.1}[granularity]
    assert max(sum(row["bytes"].values()) for row in search) <= most * SLOTS
    assert sum(final["bytes"].values()) < 4 * SLOTS


def test_values_of_16_bits(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, config(dtype="float16"))
    final = trainer.train()
    assert final["nnz"] == round(0.25 * SLOTS)
    assert final["bytes"]["values"] == 2 * final["nnz"]
    assert tickets(trainer)[0].dtype == torch.float16


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_run_that_is_resumed_ends_in_the_same_bits(tmp_path: Path, share: float) -> None:
    """Cut early in the search, later in it, and in the last retraining."""
    settings = config(targets="0.5")
    whole = small_runs.trainer(tmp_path, settings, "whole")
    chunks: list[str] = []
    whole.on_chunk = lambda stage, epoch, done: chunks.append(stage)
    whole.train()
    cut = small_runs.trainer(tmp_path, settings, "cut")
    left = round(share * len(chunks))
    assert chunks[left - 1] == ("target 2" if share > 0.9 else "search")

    def stop(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            cut.request_stop(signal.SIGTERM)

    cut.on_chunk = stop
    with pytest.raises(Interrupted):
        cut.train()
    again = small_runs.trainer(tmp_path, settings, "cut")
    again.resume()
    again.train()
    for name in ("mask-0", "mask-1", "target-1", "best"):
        one, other = (load_table(run.run_folder.checkpoint(name)) for run in (whole, again))
        assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in one.state_dict().items()), name


def test_a_search_that_ends_too_early_says_what_to_change(tmp_path: Path) -> None:
    message = r"density is 1\.0000 after 1 epochs of search, above the target 0\.2500; raise policy\.pep\.epochs"
    with pytest.raises(UserError, match=message):
        small_runs.trainer(tmp_path, config(epochs=1, start=-100.0, trim=False)).train()


def test_a_search_that_ends_too_early_can_be_cut_to_its_targets(tmp_path: Path) -> None:
    """With thresholds that have hardly risen: what stays are the largest weights that it has trained."""
    settings = config(epochs=2, start=-100.0, targets="0.5")
    trainer = small_runs.trainer(tmp_path, settings)
    trained: list[torch.Tensor] = []
    trainer.on_chunk = lambda stage, *_: (
        trained.append(trainer.stage.table.to_dense().abs()) if stage == "search" else None
    )
    trainer.train()
    found = tickets(trainer)
    assert [table.nnz for table in found] == [round(0.5 * SLOTS), round(0.25 * SLOTS)]
    for table in found:
        assert float(trained[-1][table.mask()].min()) >= float(trained[-1][~table.mask()].max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": "0.1"}, r"policy.pep.targets has '0.1'; expected a density above policy.density 0.25"),
        ({"targets": "much"}, "policy.pep.targets has 'much'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_runs.trainer(tmp_path, config(**changes))


def test_it_needs_checkpoints_and_a_size(tmp_path: Path) -> None:
    settings = config()
    without = dataclasses.replace(settings, train=dataclasses.replace(settings.train, checkpoint=False))
    with pytest.raises(UserError, match=r"leave train\.checkpoint at true"):
        policies.resolve(without)
    sizeless = dataclasses.replace(settings, policy=dataclasses.replace(settings.policy, density=None))
    with pytest.raises(UserError, match="policy pep needs a size"):
        small_runs.trainer(tmp_path, sizeless)
