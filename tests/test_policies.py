from __future__ import annotations

import math
from pathlib import Path

import pytest
import small_runs
import torch

from recsparse import ops, policies
from recsparse.errors import UserError
from recsparse.models import Triples
from recsparse.policies.dsl import DslStage, Schedule, parse_period
from recsparse.train import Trainer, check_invariants


def dsl_stage(trainer: Trainer) -> DslStage:
    assert isinstance(trainer.stage, DslStage)
    return trainer.stage


def test_every_registered_policy_is_found_by_its_name() -> None:
    baselines = {"dense", "dense_fp16", "dense_int8", "small_dense", "random_mask"}
    assert set(policies.REGISTRY) == baselines | {"dsl", "lth", "pep", "bet", "bet_random", "ticket"}
    assert all(policies.find(name).name == name for name in policies.REGISTRY)
    with pytest.raises(UserError, match=r"policy\.name is 'dls'; it must be one of dense, small_dense, dsl"):
        policies.find("dls")


def test_the_ratio_is_a_cosine_between_its_ends() -> None:
    schedule = Schedule(every=10, last_step=1000, ratio=0.5, ratio_min=0.005)
    assert schedule.share(0) == 0.5
    assert schedule.share(1000) == pytest.approx(0.005)
    assert schedule.share(500) == pytest.approx((0.5 + 0.005) / 2)
    assert schedule.share(250) == pytest.approx(0.005 + 0.2475 * (1 + math.sqrt(0.5)))


def test_updates_come_every_period_up_to_and_with_the_last_step() -> None:
    schedule = Schedule(every=10, last_step=30, ratio=0.5, ratio_min=0.0)
    assert [schedule.due(step) for step in (0, 9, 10, 29, 30, 31)] == [10, 10, 20, 30, None, None]
    assert Schedule(every=10, last_step=0, ratio=0.5, ratio_min=0.0).due(0) is None


@pytest.mark.parametrize(
    ("text", "steps"), [("3000 steps", 3000), ("1 step", 1), ("1 epoch", 40), ("0.5 epochs", 20), ("0.001 epochs", 1)]
)
def test_periods(text: str, steps: int) -> None:
    assert parse_period(text, 40) == steps


@pytest.mark.parametrize("text", ["", "5", "0 steps", "-1 steps", "1 hour", "x steps"])
def test_garbage_periods_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"policy\.dsl\.every"):
        parse_period(text, 40)


def test_dense_and_small_dense_are_one_stage_without_mask_updates(tmp_path: Path) -> None:
    for name, dim in (("dense", 16), ("small_dense", 4)):
        trainer = small_runs.trainer(tmp_path, small_runs.config(name))
        table = trainer.stage.table
        assert (table.kind, table.dim, table.nnz) == ("full", dim, table.rows * dim)
        assert trainer.stage.prune_due(0) is None
        assert trainer.policy.stage(1, table) is None


@pytest.mark.parametrize("start", ["bernoulli", "prefix"])
def test_dsl_starts_at_its_budget(tmp_path: Path, start: str) -> None:
    stage = dsl_stage(small_runs.trainer(tmp_path, small_runs.config(start=start)))
    rows = small_runs.USERS + small_runs.ITEMS
    # A random mask is drawn without a list of slots: it may stay a few weights below the budget, never above.
    assert 0.98 * stage.table.capacity <= stage.table.nnz <= stage.table.capacity == rows * 4
    columns = stage.table.mask().sum(0)
    assert (columns[:4] == rows).all() == (start == "prefix")


@pytest.mark.parametrize("grow", ["last_batch", "fresh"])
def test_an_update_drops_the_smallest_and_grows_the_steepest(tmp_path: Path, grow: str) -> None:
    trainer = small_runs.trainer(tmp_path, small_runs.config(start="bernoulli", grow=grow, ratio=0.1, every="1 epoch"))
    stage = dsl_stage(trainer)
    table = stage.table
    batch = Triples(*trainer.sampler.draw(0, 64))
    trainer.model.train_(table, stage.optimizer, batch, 64)
    step = stage.schedule.every
    triples = batch
    if grow == "fresh":
        triples = trainer._draw_fresh(1, trainer.draws_per_epoch)
    before, kept = table.to_dense(), table.mask()
    keys, scores = trainer.model.grow_scores(table, triples, kept.numel())
    wanted = min(math.ceil(stage.schedule.share(step) * table.nnz), len(keys))
    stage.prune(step, batch)
    check_invariants(stage)
    after = table.mask()
    dropped, grown = kept & ~after, after & ~kept
    assert int(dropped.sum()) == int(grown.sum()) == stage.dropped == stage.grown == wanted > 0
    assert before[dropped].abs().max() <= before[kept & after].abs().min()
    assert (table.to_dense()[grown] == 0).all()
    steepness = torch.zeros(kept.numel()).index_put((keys,), scores).view_as(kept)
    assert steepness[grown].min() >= steepness[~kept & ~grown].max()
    assert table.nnz <= table.capacity


def test_an_update_replaces_no_more_than_the_candidate_store_holds(tmp_path: Path) -> None:
    stage = dsl_stage(small_runs.trainer(tmp_path, small_runs.config(start="bernoulli", ratio=0.5, max_candidates=7)))
    stage.prune(stage.schedule.every, stage.context.draw_fresh(0, 64))
    assert stage.dropped == stage.grown == 7


def test_capacity_that_is_not_used_is_grown_into(tmp_path: Path) -> None:
    stage = dsl_stage(small_runs.trainer(tmp_path, small_runs.config(start="bernoulli", ratio=0.1)))
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    ops.prune_regrow_(stage.table, stage.optimizer.weight_state, *nothing, drop=30, grow=0)
    assert stage.table.nnz == stage.table.capacity - 30
    stage.prune(stage.schedule.every, stage.context.draw_fresh(0, 64))
    assert stage.table.nnz == stage.table.capacity


def test_the_state_of_a_stage_is_plain_and_restores(tmp_path: Path) -> None:
    first, second = (dsl_stage(small_runs.trainer(tmp_path, small_runs.config())) for _ in range(2))
    first.prune(first.schedule.every, first.context.draw_fresh(0, 64))
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict() == {"dropped": first.dropped, "grown": first.grown}
