from __future__ import annotations

import dataclasses
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import small_runs
import torch

from recsparse import checkpoint, ops
from recsparse.checkpoint import load_table
from recsparse.config import Config, OptimConfig
from recsparse.data import Interactions
from recsparse.errors import Diverged, InvariantError, UserError
from recsparse.evaluate import evaluate
from recsparse.models import Triples
from recsparse.policies import Policy, Stage
from recsparse.runs import RunFolder
from recsparse.table import PackedTable
from recsparse.train import CHUNK_STEPS, Interrupted, Trainer, check_invariants, learning_rate

POLICIES = ["dense", "small_dense", "dsl"]
TIMES = ("seconds", "samples_per_second", "wall_seconds", "peak_rss_bytes", "version")


def facts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without what differs between two equal runs."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    moments = trainer.stage.optimizer.state
    return {"moments": moments, **trainer.stage.table.state_dict()}


def assert_equal_runs(one: Trainer, other: Trainer) -> None:
    assert facts(one.run_folder.rows()) == facts(other.run_folder.rows())
    for name, value in state(one).items():
        assert torch.equal(value, state(other)[name]), name


def stop_at(trainer: Trainer, epoch: int, share: float) -> None:
    """Sends the trainer SIGTERM when it has done `share` of `epoch` (from 0)."""

    def watch(stage: str, current: int, done: float) -> None:
        if current == epoch and done >= share:
            trainer.request_stop(signal.SIGTERM)

    trainer.on_chunk = watch


@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_learns_and_leaves_its_facts(tmp_path: Path, policy: str) -> None:
    trainer = small_runs.trainer(tmp_path, small_runs.config(policy, epochs=10))
    untrained = evaluate(trainer.stage.table, trainer.dataset, split="test", ks=(20,)).values["recall@20"]
    final = trainer.train()
    rows = trainer.run_folder.rows()
    assert [row["epoch"] for row in rows[:-1]] == list(range(1, 11))
    assert rows[-1] == final
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=0.05)
    assert rows[-2]["loss"] < 0.9 * rows[0]["loss"]
    assert final["test_recall@20"] > 1.3 * untrained
    assert [("valid_recall@20" in row) for row in rows[:-1]] == [epoch % 2 == 0 for epoch in range(1, 11)]
    assert set(rows[0]["seconds"]) == {"sample", "step", "prune", "eval"}
    assert final["data_hash"] == trainer.dataset.hash
    assert final["bytes"]["values"] + final["bytes"]["index"] == trainer.stage.table.nbytes()["total"]
    assert final["bytes"]["state"] == trainer.stage.optimizer.nbytes()
    assert final["selected_on"] == "valid"
    assert "stamp" not in final
    assert final["peak_rss_bytes"] > 0


def test_the_best_model_on_valid_is_tested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = []

    def counted(table: PackedTable, *args: Any, **options: Any) -> Any:
        splits.append(options["split"])
        return evaluate(table, *args, **options)

    monkeypatch.setattr("recsparse.train.evaluate", counted)
    trainer = small_runs.trainer(tmp_path, small_runs.config("dense", epochs=6))
    final = trainer.train()
    assert splits == ["valid", "valid", "valid", "test"]
    scores = {row["epoch"]: row["valid_recall@20"] for row in trainer.run_folder.rows() if "valid_recall@20" in row}
    assert final["best_valid_recall@20"] == max(scores.values()) == scores[final["best_epoch"]]
    best = load_table(trainer.run_folder.checkpoint("best"))
    again = evaluate(best, trainer.dataset, split="test", ks=(20,))
    assert final["test_recall@20"] == again.values["recall@20"]


def test_protocol_paper_selects_on_test_and_says_so(tmp_path: Path) -> None:
    lines: list[str] = []
    trainer = small_runs.trainer(tmp_path, small_runs.config("dense", protocol="paper"))
    trainer.log = lines.append
    final = trainer.train()
    assert final["stamp"] == "TEST-SELECTED"
    assert final["test_recall@20"] == final["best_test_recall@20"]
    evaluated = [line for line in lines if "recall@20" in line]
    assert len(evaluated) == 3
    assert all("TEST-SELECTED" in line for line in evaluated)


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quality = iter([0.1, 0.3, 0.2, 0.3, 0.9, 0.5])

    def scripted(table: PackedTable, *args: Any, **options: Any) -> Any:
        return dataclasses.replace(
            evaluate(table, *args, **options), values={"recall@20": next(quality), "ndcg@20": 0.0}
        )

    monkeypatch.setattr("recsparse.train.evaluate", scripted)
    trainer = small_runs.trainer(tmp_path, small_runs.config("dense", epochs=9, eval_every=1, patience=2))
    final = trainer.train()
    assert (final["epochs"], final["best_epoch"], final["best_valid_recall@20"]) == (4, 2, 0.3)


@pytest.mark.parametrize("policy", POLICIES)
def test_two_runs_are_bit_equal(tmp_path: Path, policy: str) -> None:
    one, other = (small_runs.trainer(tmp_path, small_runs.config(policy), name) for name in ("one", "other"))
    one.train()
    other.train()
    assert_equal_runs(one, other)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("share", [0.01, 1.0])
def test_stop_and_resume_is_bit_equal_to_no_stop(
    tmp_path: Path, policy: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsparse.train.CHUNK_STEPS", 4)
    settings = small_runs.config(policy, epochs=6, every="5 steps")
    whole = small_runs.trainer(tmp_path, settings, "whole")
    whole.train()
    stopped = small_runs.trainer(tmp_path, settings, "stopped")
    stop_at(stopped, 3, share)
    with pytest.raises(Interrupted) as interrupt:
        stopped.train()
    assert interrupt.value.exit_code == 143
    assert "--resume" in str(interrupt.value)
    resumed = small_runs.trainer(tmp_path, settings, "stopped")
    resumed.resume()
    assert resumed.progress.epoch == 3
    assert resumed.progress.done > 0
    resumed.train()
    assert_equal_runs(whole, resumed)


def test_a_longer_run_goes_on_where_a_finished_one_ended(tmp_path: Path) -> None:
    whole = small_runs.trainer(tmp_path, small_runs.config("dense", epochs=6), "whole")
    whole.train()
    small_runs.trainer(tmp_path, small_runs.config("dense", epochs=4), "grown").train()
    with pytest.raises(UserError, match=r"is finished; raise train\.epochs"):
        small_runs.trainer(tmp_path, small_runs.config("dense", epochs=4), "grown").resume()
    grown = small_runs.trainer(tmp_path, small_runs.config("dense", epochs=6), "grown")
    grown.resume()
    grown.train()
    assert_equal_runs(whole, grown)


def test_resume_refuses_other_data(tmp_path: Path) -> None:
    small_runs.trainer(tmp_path, small_runs.config("dense", epochs=2)).train()
    trainer = small_runs.trainer(tmp_path, small_runs.config("dense", epochs=4, protocol="paper"))
    with pytest.raises(UserError, match="was trained on data"):
        trainer.resume()


@pytest.mark.parametrize("missing", ["policy", "progress"])
def test_resume_refuses_a_checkpoint_of_another_version(tmp_path: Path, missing: str) -> None:
    first = small_runs.trainer(tmp_path, small_runs.config("dense", epochs=2))
    first.train()
    last = first.run_folder.checkpoint("last")
    saved = checkpoint.load(last)
    del saved.state[missing]
    checkpoint.save(last, saved.tensors, saved.state)
    with pytest.raises(UserError, match=f"another version of recsparse.*{missing}"):
        small_runs.trainer(tmp_path, small_runs.config("dense", epochs=4)).resume()


def test_chunks_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = small_runs.trainer(tmp_path, small_runs.config(every="7 steps"), "one")
    one.train()
    assert CHUNK_STEPS > 7
    monkeypatch.setattr("recsparse.train.CHUNK_STEPS", 3)
    other = small_runs.trainer(tmp_path, small_runs.config(every="7 steps"), "other")
    other.train()
    for name, value in state(one).items():
        assert torch.equal(value, state(other)[name]), name


def test_mask_updates_come_at_their_exact_steps_with_the_last_mini_batch(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, small_runs.config(every="7 steps", stop_at=0.6))
    seen: list[tuple[int, int]] = []
    batches: list[Triples] = []
    prune = trainer.stage.prune

    def watched(step: int, last_batch: Triples) -> None:
        seen.append((step, int(trainer.stage.optimizer.step)))
        batches.append(last_batch)
        prune(step, last_batch)

    trainer.stage.prune = watched  # type: ignore[method-assign]
    trainer.train()
    per_epoch = math.ceil(trainer.draws_per_epoch / 64)
    last = int(0.6 * 4 * per_epoch)
    assert seen == [(step, step) for step in range(7, last + 1, 7)]
    for (step, _), batch in zip(seen, batches, strict=True):
        epoch, inside = divmod(step - 1, per_epoch)
        start = epoch * trainer.draws_per_epoch + inside * 64
        count = min(64, (epoch + 1) * trainer.draws_per_epoch - start)
        for ours, expected in zip(batch, trainer.sampler.draw(start, count), strict=True):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("policy", POLICIES)
def test_invariants_hold_after_every_single_step(
    tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr("recsparse.train.CHUNK_STEPS", 1)
    checked: list[int] = []

    def counted(stage: Stage) -> None:
        check_invariants(stage)
        checked.append(stage.table.nnz)

    monkeypatch.setattr("recsparse.train.check_invariants", counted)
    trainer = small_runs.trainer(tmp_path, small_runs.config(policy, epochs=2, every="3 steps", ratio=0.5))
    trainer.train()
    assert len(checked) == trainer.progress.step == 2 * math.ceil(trainer.draws_per_epoch / 64)
    assert max(checked) <= trainer.stage.table.capacity


def test_the_invariant_check_sees_a_stray_moment(tmp_path: Path) -> None:
    stage = small_runs.trainer(tmp_path, small_runs.config()).stage
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    ops.prune_regrow_(stage.table, stage.optimizer.weight_state, *nothing, drop=5, grow=0)
    check_invariants(stage)
    stage.optimizer.state[2 * stage.table.nnz] = 1e-30
    with pytest.raises(InvariantError, match=r"moments\[.*\] lies behind the kept weights"):
        check_invariants(stage)


def test_a_loss_that_is_not_finite_names_epoch_step_rate_and_checkpoint(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, small_runs.config("dense", epochs=6, check_invariants=False))
    table = trainer.stage.table

    def poison(stage: str, epoch: int, share: float) -> None:
        if epoch == 2:
            table.values.fill_(float("nan"))

    trainer.on_chunk = poison
    with pytest.raises(UserError) as error:
        trainer.train()
    steps = math.ceil(trainer.draws_per_epoch / 64)
    message = str(error.value)
    assert f"the loss is nan at epoch 4, step {3 * steps + 1}, with optim.lr 0.02" in message
    assert str(trainer.run_folder.checkpoint("last")) in message
    load_table(trainer.run_folder.checkpoint("last"))


def test_a_weight_that_the_last_step_makes_infinite_is_divergence(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, small_runs.config("dense", epochs=2, check_invariants=False))

    def poison(stage: str, epoch: int, share: float) -> None:
        if epoch == 1 and share == 1.0:
            trainer.stage.table.values[3] = float("inf")

    trainer.on_chunk = poison
    with pytest.raises(Diverged, match=r"a weight is not finite after epoch 2, with optim\.lr 0\.02: lower optim\.lr"):
        trainer.train()


def test_nan_in_a_stored_table_is_refused(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, small_runs.config("dense", epochs=2))
    trainer.train()
    folder = trainer.run_folder.checkpoint("best")
    saved = checkpoint.load(folder)
    saved.tensors["table"]["values"][5] = float("nan")
    checkpoint.save(folder, saved.tensors, saved.state)
    with pytest.raises(UserError, match="weight 5 of the table is nan"):
        load_table(folder)


class Rounds(Policy):
    """Two stages: the second starts from the table that the first left."""

    name = "rounds"

    def stage(self, number: int, previous: PackedTable | None) -> Stage | None:
        if number == 2:
            return None
        rows, dim = self.context.model.rows, self.context.config.model.dim
        table = previous or PackedTable.init(rows, dim, kind="full", capacity=rows * dim, start="full", seed=1)
        return Stage(f"round {number}", table, self.context.optimizer(table), 4, 0, ("first", "best")[number])


def test_stages_follow_each_other_and_survive_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("recsparse.policies", fromlist=["REGISTRY"]).REGISTRY, "rounds", Rounds)

    def settings() -> Config:
        return small_runs.config("rounds")

    whole = small_runs.trainer(tmp_path, settings(), "whole")
    whole.train()
    rows = whole.run_folder.rows()[:-1]
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        (stage, epoch) for stage in (0, 1) for epoch in (1, 2, 3, 4)
    ]
    assert rows[4]["loss"] < 0.9 * rows[0]["loss"]
    stopped = small_runs.trainer(tmp_path, settings(), "stopped")
    stopped.on_chunk = lambda stage, epoch, share: (
        stopped.request_stop(signal.SIGINT) if (stage, epoch) == ("round 1", 1) else None
    )
    with pytest.raises(Interrupted) as interrupt:
        stopped.train()
    assert interrupt.value.exit_code == 130
    resumed = small_runs.trainer(tmp_path, settings(), "stopped")
    resumed.resume()
    resumed.train()
    assert_equal_runs(whole, resumed)


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_split_without_items_is_refused_before_training(tmp_path: Path, part: str) -> None:
    data = small_runs.dataset(tmp_path)
    empty = dataclasses.replace(data, **{part: Interactions.empty(data.n_users)})
    with pytest.raises(UserError, match=f"{part} has no interactions"):
        Trainer(small_runs.config("dense"), empty, RunFolder(tmp_path / "run"))


def test_nothing_is_written_when_a_size_is_impossible(tmp_path: Path) -> None:
    settings = small_runs.config("dsl")
    settings.policy.density = 0.01
    with pytest.raises(UserError, match="less than one weight a row"):
        small_runs.trainer(tmp_path, settings)
    assert not (tmp_path / "run").exists()


STATE_BYTES = {"adagrad": 4, "rowwise_adagrad": 0, "sgd": 0}  # of a kept weight


@pytest.mark.parametrize("name", STATE_BYTES)
def test_every_optimiser_trains_stops_and_resumes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With mask updates, which have to move state of every shape."""
    monkeypatch.setattr("recsparse.train.CHUNK_STEPS", 4)
    settings = small_runs.config("dsl", epochs=6, every="5 steps")
    settings.optim.name = name  # type: ignore[assignment]
    settings.optim.lr = 5.0 if name == "sgd" else 0.1
    settings.model.init_std = 0.3
    whole = small_runs.trainer(tmp_path, settings, "whole")
    final = whole.train()
    rows = 4 * whole.stage.table.rows if name == "rowwise_adagrad" else 0
    assert final["bytes"]["state"] == STATE_BYTES[name] * whole.stage.table.capacity + rows
    epochs = [row["loss"] for row in whole.run_folder.rows() if row["event"] == "epoch"]
    assert epochs[-1] < 0.99 * epochs[0]
    stopped = small_runs.trainer(tmp_path, settings, "stopped")
    stop_at(stopped, 3, 0.5)
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = small_runs.trainer(tmp_path, settings, "stopped")
    resumed.resume()
    resumed.train()
    assert_equal_runs(whole, resumed)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("policy", POLICIES)
def test_weights_of_16_bits_train_stop_and_resume(
    tmp_path: Path, policy: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsparse.train.CHUNK_STEPS", 4)
    settings = small_runs.config(policy, epochs=6, every="5 steps", dtype=dtype)
    whole = small_runs.trainer(tmp_path, settings, "whole")
    final = whole.train()
    assert final["dtype"] == dtype
    assert final["bytes"]["values"] == 2 * whole.stage.table.capacity
    assert final["bytes"]["state"] == 8 * whole.stage.table.capacity
    epochs = [row["loss"] for row in whole.run_folder.rows() if row["event"] == "epoch"]
    assert epochs[-1] < epochs[0]
    saved = load_table(whole.run_folder.checkpoint("last"))
    assert saved.dtype == getattr(torch, dtype)
    assert torch.equal(saved.values, whole.stage.table.values)
    stopped = small_runs.trainer(tmp_path, settings, "stopped")
    stop_at(stopped, 3, 0.5)
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = small_runs.trainer(tmp_path, settings, "stopped")
    resumed.resume()
    resumed.train()
    assert_equal_runs(whole, resumed)
    other = small_runs.trainer(tmp_path, small_runs.config(policy, epochs=8, every="5 steps"), "stopped")
    with pytest.raises(UserError, match="does not fit this run"):
        other.resume()


def test_learning_rates_follow_the_schedule_from_the_rate_of_the_stage() -> None:
    constant = OptimConfig(lr=0.01)
    assert [learning_rate(constant, epoch, 5, 0.0) for epoch in range(5)] == [0.01] * 5
    assert learning_rate(constant, 3, 5, 0.04) == 0.04
    cosine = OptimConfig(lr=0.01, schedule="cosine", lr_end=0.002)
    found = [learning_rate(cosine, epoch, 5, 0.0) for epoch in range(6)]
    assert found == pytest.approx(
        [0.01, 0.006 + 0.004 * math.sqrt(0.5), 0.006, 0.006 - 0.004 * math.sqrt(0.5)] + [0.002] * 2
    )
    assert [learning_rate(cosine, epoch, 3, 0.04) for epoch in range(3)] == pytest.approx([0.04, 0.021, 0.002])
    assert learning_rate(cosine, 1, 3, 0.001) == pytest.approx(0.001)  # never above where the stage starts
