from __future__ import annotations

import dataclasses
import itertools
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import small_runs
import torch

from recsparse import checkpoint
from recsparse.budget import TablePlan
from recsparse.checkpoint import load_table
from recsparse.cli import main
from recsparse.config import Config, LthConfig
from recsparse.errors import UserError
from recsparse.evaluate import evaluate
from recsparse.metrics import Metrics
from recsparse.policies.lth import parse_rewind, pruned, randomise, restore, schedule, split_target
from recsparse.table import PackedTable
from recsparse.train import Interrupted, Trainer

SLOTS = (small_runs.USERS + small_runs.ITEMS) * 16


def config(epochs: int = 2, **options: Any) -> Config:
    settings = small_runs.config("dense", epochs=epochs)
    policy = dataclasses.replace(settings.policy, name="lth", lth=LthConfig(**({"rounds": 3} | options)))
    return dataclasses.replace(settings, policy=policy)


def tickets(trainer: Trainer) -> list[PackedTable]:
    folders = sorted(trainer.run_folder.checkpoint("best").parent.glob("ticket-??"))
    return [load_table(folder) for folder in folders]


def initial(trainer: Trainer, table: PackedTable) -> torch.Tensor:
    """The weights that a fresh table has where `table` has any."""
    options = trainer.config
    fresh = PackedTable.init(
        table.rows, table.dim, kind="full", capacity=SLOTS, start="full", seed=0, std=options.model.init_std
    )
    return fresh.to_dense() * table.mask()


def test_rounds_are_exact_nested_and_rewound(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, config())
    final = trainer.train()
    found = tickets(trainer)
    assert [table.nnz for table in found] == [round(SLOTS * 0.9**k) for k in range(4)]
    assert found[0].kind == "full"
    assert {table.kind for table in found[1:]} == {"bits"}
    for before, after in itertools.pairwise(found):
        assert not bool((after.mask() & ~before.mask()).any())
    for table in found:
        assert torch.equal(table.to_dense(), initial(trainer, table))
        assert table.capacity == table.nnz  # packed at the density of the round
    rows = trainer.run_folder.rows()
    stages = [row for row in rows if row["event"] == "stage"]
    assert [row["nnz"] for row in stages] == [table.nnz for table in found]
    assert stages[-1]["test_recall@20"] == final["test_recall@20"]
    assert [row["bytes"]["state"] for row in stages] == [8 * table.nnz for table in found]
    state = checkpoint.load(trainer.run_folder.checkpoint("ticket-02")).state
    assert state["metrics"]["test_recall@20"] == stages[2]["test_recall@20"]
    assert state["density"] == pytest.approx(0.81, abs=1e-3)


def test_what_leaves_is_the_smallest(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, config(rounds=1))
    trainer.train()
    ticket = tickets(trainer)[1]
    trained = load_table(trainer.run_folder.checkpoint("round-0")).to_dense().abs()
    kept = trained[ticket.mask()]
    gone = trained[~ticket.mask()]
    assert gone.max() <= kept.min()


@pytest.mark.parametrize("options", [{}, {"rewind": "1 epoch"}, {"prune_from": "last"}])
def test_a_stopped_run_goes_on_with_the_same_bits(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = small_runs.trainer(tmp_path, config(**options), "whole")
    whole.train()
    stopped = small_runs.trainer(tmp_path, config(**options), "stopped")

    def watch(stage: str, epoch: int, share: float) -> None:
        if stage == "round 2" and epoch == 1:
            stopped.request_stop(signal.SIGTERM)

    stopped.on_chunk = watch
    with pytest.raises(Interrupted):
        stopped.train()
    again = small_runs.trainer(tmp_path, config(**options), "stopped")
    again.resume()
    again.train()
    for name, value in whole.stage.table.state_dict().items():
        assert torch.equal(value, again.stage.table.state_dict()[name])
    facts = [
        [{key: row.get(key) for key in ("event", "stage", "epoch", "loss", "nnz", "test_recall@20")} for row in each]
        for each in (whole.run_folder.rows(), again.run_folder.rows())
    ]
    assert facts[0] == facts[1]


def test_rewinding_to_an_epoch_goes_back_to_its_weights(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, config(rewind="1 epoch", rounds=2))
    trainer.train()
    start = load_table(trainer.run_folder.checkpoint("rewind")).to_dense()
    found = tickets(trainer)
    assert not torch.equal(start, initial(trainer, found[0]))
    for table in found:
        assert torch.equal(table.to_dense(), start * table.mask())


def test_rewinding_to_a_step(tmp_path: Path) -> None:
    """The steps of an epoch are that epoch; fewer are weights of their own, and no epoch's."""
    starts = {}
    for rewind in ("1 epoch", "STEPS", "3 steps"):
        trainer = small_runs.trainer(tmp_path, config(rewind="init", rounds=1), rewind)
        steps = -(-trainer.draws_per_epoch // trainer.config.train.batch_size)
        chosen = config(rewind=rewind.replace("STEPS", f"{steps} steps"), rounds=1)
        trainer = small_runs.trainer(tmp_path, chosen, rewind)
        trainer.train()
        starts[rewind] = load_table(trainer.run_folder.checkpoint("rewind")).to_dense()
    assert torch.equal(starts["1 epoch"], starts["STEPS"])
    assert not torch.equal(starts["1 epoch"], starts["3 steps"])


@pytest.mark.parametrize(("prune_from", "epoch"), [("best", 2), ("last", 4)])
def test_a_round_is_pruned_from_its_best_or_its_last_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prune_from: str, epoch: int
) -> None:
    quality = itertools.count(100, -1)

    def falling(*args: Any, **options: Any) -> Metrics:
        found = evaluate(*args, **options)
        return dataclasses.replace(found, values={"recall@20": next(quality) / 100, "ndcg@20": 0.0})

    monkeypatch.setattr("recsparse.train.evaluate", falling)
    trainer = small_runs.trainer(tmp_path, config(epochs=4, rounds=1, prune_from=prune_from))
    trainer.train()
    assert checkpoint.load(trainer.run_folder.checkpoint("round-0")).state["epoch"] == epoch


def test_controls(tmp_path: Path) -> None:
    magnitude = small_runs.trainer(tmp_path, config(rounds=1), "magnitude")
    magnitude.train()
    random = small_runs.trainer(tmp_path, config(rounds=1, criterion="random"), "random")
    random.train()
    ours, theirs = tickets(magnitude)[1], tickets(random)[1]
    assert ours.nnz == theirs.nnz
    assert not torch.equal(ours.mask(), theirs.mask())
    assert torch.equal(theirs.to_dense(), initial(random, theirs))

    fresh = small_runs.trainer(tmp_path, config(rounds=1, rewind="random"), "fresh")
    fresh.train()
    assert torch.equal(tickets(fresh)[1].mask(), ours.mask())
    assert not torch.equal(tickets(fresh)[1].to_dense(), ours.to_dense())

    kept = small_runs.trainer(tmp_path, config(rounds=1, rewind="none"), "kept")
    kept.train()
    trained = load_table(kept.run_folder.checkpoint("round-0")).to_dense()
    assert torch.equal(tickets(kept)[1].to_dense(), trained * ours.mask())

    once = small_runs.trainer(tmp_path, config(rounds=3, one_shot=True), "once")
    once.train()
    assert [table.nnz for table in tickets(once)] == [SLOTS, round(SLOTS * 0.9**3)]


@pytest.mark.parametrize("scope", ["joint", "both", "user", "item"])
def test_scopes_prune_their_part(scope: str) -> None:
    table = PackedTable.init(30, 8, kind="full", capacity=240, start="full", seed=1)
    dense, n_users = table.to_dense().abs(), 10
    (_, kept) = schedule(LthConfig(rounds=1, rate=0.25, scope=scope), (80, 160), None)  # type: ignore[arg-type]
    small = pruned(table, n_users, kept)
    mask = small.mask()
    counts = int(mask[:n_users].sum()), int(mask[n_users:].sum())
    assert counts == {"both": (60, 120), "user": (60, 160), "item": (80, 120)}.get(scope, counts)
    assert sum(counts) == {"user": 220, "item": 200}.get(scope, 180)
    assert torch.equal(small.to_dense().abs(), dense * mask)
    parts = [slice(0, 30)] if scope == "joint" else [slice(0, n_users), slice(n_users, 30)]
    for part in parts:
        left = dense[part][~mask[part]]
        assert not len(left) or left.max() <= dense[part][mask[part]].min()
    small.check_invariants()


def test_the_schedule_ends_where_the_size_says() -> None:
    parts = (600, 400)
    plan = TablePlan("bits", 100, 10, 200)
    found = schedule(LthConfig(), parts, plan)
    assert found[0] == (1000, -1)
    assert found[-1] == (200, -1)
    assert found[-2][0] > 200
    assert schedule(LthConfig(one_shot=True), parts, plan) == [(1000, -1), (200, -1)]
    # A round that meets the size is the last one: it is not there twice.
    assert schedule(LthConfig(), parts, TablePlan("bits", 100, 10, 810)) == [(1000, -1), (900, -1), (810, -1)]
    assert schedule(LthConfig(scope="both"), parts, plan)[-1] == (120, 80)
    assert split_target("user", parts, 450) == (50, 400)
    with pytest.raises(UserError, match="keeps all 400 item weights"):
        schedule(LthConfig(scope="user"), parts, plan)
    with pytest.raises(UserError, match="needs an end"):
        schedule(LthConfig(), parts, None)
    with pytest.raises(UserError, match="leaves no weight"):
        schedule(LthConfig(rounds=100), (6, 4), None)
    assert parse_rewind("12 epochs", 7) == 84
    assert parse_rewind("12 steps", 7) == 12
    with pytest.raises(UserError, match=r"policy.lth.rewind is 'later'"):
        parse_rewind("later", 7)


def test_random_choice_and_restoring_do_not_depend_on_the_kind() -> None:
    full = PackedTable.init(40, 12, kind="full", capacity=480, start="full", seed=2)
    one, other = (PackedTable.init(40, 12, kind=kind, capacity=100, seed=3) for kind in ("bits", "cols8"))
    for table in (one, other):
        randomise(table, 7)
        restored = table.mask()
        restore(table, full)
        assert torch.equal(table.to_dense(), full.to_dense() * restored)


def test_a_ticket_trains_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(small_runs.write_folder(tmp_path / "data"))
    flags = ["--data.path", data, "--model.dim", "16", "--train.epochs", "2", "--train.batch_size", "64"]
    flags += ["--run.folder", str(tmp_path), "--optim.lr", "0.02"]
    rounds = ["--policy.name", "lth", "--policy.lth.rounds", "2", "--policy.lth.rate", "0.5"]
    assert main(["train", *flags, *rounds, "--run.name", "rounds"]) == 0
    ticket = tmp_path / "rounds" / "checkpoint" / "ticket-02"
    assert main(["train", *flags, "--ticket", str(ticket), "--run.name", "alone"]) == 0
    final = json.loads((tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()[-1])
    assert final["nnz"] == round(SLOTS * 0.25)
    assert final["policy"] == "ticket"
    capsys.readouterr()
    assert main(["train", *flags, "--ticket", str(ticket), "--model.dim", "8"]) == 2
    assert "give the data and the dim" in capsys.readouterr().err
    assert main(["train", *flags, "--ticket", str(tmp_path / "nowhere")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert main(["train", *flags, "--policy.name", "ticket"]) == 2
    assert "give a ticket" in capsys.readouterr().err
