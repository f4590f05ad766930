from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
import torch

from recsparse import layout, policies
from recsparse.checkpoint import load_table
from recsparse.cli import main
from recsparse.config import BetConfig, Config
from recsparse.errors import UserError
from recsparse.evaluate import evaluate
from recsparse.metrics import Metrics
from recsparse.policies.bet import Bet, kept_slots, quality
from recsparse.policies.bet_fitness import FitnessPredictor, ranges
from recsparse.runs import RunFolder
from recsparse.table import PackedTable
from recsparse.train import Interrupted, Trainer

ROWS = small_runs.USERS + small_runs.ITEMS
DIM = 16
SHORT = {"iterations": 6, "actions": 5, "finetune_epochs": 2, "retrain": 2}


def config(policy: str = "bet", *, model: str = "mf", epochs: int = 2, budget: str = "", **options: Any) -> Config:
    settings = small_runs.config("dense", model=model, epochs=epochs, eval_every=1)
    bet = BetConfig(**(SHORT | options))
    size: dict[str, Any] = {"budget": budget} if budget else {"density": 0.25}
    return policies.resolve(
        dataclasses.replace(settings, policy=dataclasses.replace(settings.policy, name=policy, bet=bet, **size))
    )


def bet_of(trainer: Trainer) -> Bet:
    assert isinstance(trainer.policy, Bet)
    return trainer.policy


def rows_of(trainer: Trainer, event: str = "epoch") -> list[dict[str, Any]]:
    return [row for row in trainer.run_folder.rows() if row["event"] == event]


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_search_and_selective_retraining(tmp_path: Path, model: str) -> None:
    trainer = small_runs.trainer(tmp_path, config(model=model))
    final = trainer.train()
    policy = bet_of(trainer)
    rows = rows_of(trainer)
    epochs = {stage: [row for row in rows if row["stage"] == stage] for stage in range(9)}
    assert sum(map(len, epochs.values())) == len(rows) == 2 + 6 * 2 + 2 * 2

    # Fitness: the quality after fine-tuning as a share of the pre-trained table's best, both on the split that selects.
    def quality_of(row: dict[str, Any]) -> float:
        values = [row[f"valid_{name}@{k}"] for k in (5, 10, 20) for name in ("recall", "ndcg")]
        return sum(values) / 6

    best = max(epochs[0], key=lambda row: row["valid_recall@20"])
    assert policy.full_quality == pytest.approx(quality_of(best))
    assert final["search"]["trials"] == [list(trial) for trial in policy.trials]
    for iteration, (_, fitness) in enumerate(policy.trials, 1):
        assert not any(key.startswith("valid") for key in epochs[iteration][0])  # evaluated once, at the end
        assert fitness == pytest.approx(quality_of(epochs[iteration][-1]) / policy.full_quality)

    # The fittest are trained from new weights, and what is tested is the best of them.
    fittest = sorted(range(1, 7), key=lambda iteration: -float(policy.trials[iteration - 1].fitness or 0))[:2]
    assert policy.fittest(7)[:2] == fittest
    scores = [max(row["valid_recall@20"] for row in epochs[stage]) for stage in (7, 8)]
    winner = int(np.argmax(scores))
    assert final["best_valid_recall@20"] == max(scores)
    table = load_table(trainer.run_folder.checkpoint("best"))
    assert torch.equal(table.row_counts(), policy.sizes(policy._action(fittest[winner])))
    again = evaluate(trainer.model.for_ranking(table), trainer.dataset, split="test")
    assert final["test_recall@20"] == again["recall@20"]
    assert final["nnz"] == table.nnz == ROWS * DIM // 4
    assert final["kind"] == table.kind == "prefix"


@pytest.mark.parametrize("scores", [(0.3, 0.9, 0.5), (0.3, 0.5, 0.9), (0.9, 0.9, 0.5)])
def test_the_winner_is_the_best_retraining_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...]
) -> None:
    trainer = small_runs.trainer(tmp_path, config(epochs=1, retrain=3))

    def scripted(*args: Any, **options: Any) -> Metrics:
        found = evaluate(*args, **options)
        place = trainer.progress.stage - 7
        if options["split"] == "test" or place < 0:
            return found
        return dataclasses.replace(found, values=found.values | {"recall@20": scores[place]})

    monkeypatch.setattr("recsparse.train.evaluate", scripted)
    final = trainer.train()
    place = int(np.argmax(scores)) + 1
    folder = trainer.run_folder
    best, expected = (load_table(folder.checkpoint(name)) for name in ("best", f"retraining-{place}"))
    assert torch.equal(best.values, expected.values)
    assert torch.equal(best.index, expected.index)
    assert (final["best_valid_recall@20"], final["best_epoch"]) == (max(scores), 1)
    assert sum(final["bytes"][part] for part in ("values", "index")) == best.nbytes()["total"]
    again = evaluate(best, trainer.dataset, split="test")
    assert final["test_recall@20"] == again["recall@20"]


def test_sizes_follow_frequency_and_the_budget_is_bytes(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, config(budget="40%"))
    policy, dataset = bet_of(trainer), trainer.dataset
    granted = int(0.4 * ROWS * DIM * 4)
    capacity = layout.capacity_for_nbytes("prefix", ROWS, DIM, granted)
    for number in range(20):
        sizes = policy.sizes(policy.sampler.draw(1, number))
        table = PackedTable.from_sizes(sizes, DIM)
        assert table.nnz == capacity
        assert granted - 4 < table.nbytes()["total"] <= granted
        parts = (sizes[: dataset.n_users], sizes[dataset.n_users :])
        for part, counts in zip(parts, (dataset.train.degrees(), dataset.popularity), strict=True):
            order = sorted(range(len(counts)), key=lambda row: (-counts[row], row))
            assert (part[order].diff() <= 0).all()


def test_stages_start_from_the_right_weights(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, config())
    trainer.train()
    policy = bet_of(trainer)
    full = load_table(trainer.run_folder.checkpoint("pretrained")).to_dense()
    initial = PackedTable.init(ROWS, DIM, kind="full", capacity=ROWS * DIM, start="full", seed=0, std=0.01).to_dense()
    for number, start in ((3, full), (7, initial)):
        stage = policy.stage(number, None)
        assert stage is not None
        stage.table.check_invariants()
        prefix = torch.arange(DIM) < stage.table.row_counts()[:, None]
        assert torch.equal(stage.table.mask(), prefix)
        assert torch.equal(stage.table.to_dense(), start * prefix)
        assert not bool(stage.optimizer.state.any())
    assert policy.stage(9, None) is None


def test_state_is_packed_beside_the_pretraining(tmp_path: Path) -> None:
    settings = config()
    settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, dim=128))
    settings = dataclasses.replace(settings, policy=dataclasses.replace(settings.policy, density=0.1))
    trainer = small_runs.trainer(tmp_path, settings)
    trainer.train()
    spent = [sum(row["bytes"].values()) / (ROWS * 128) for row in rows_of(trainer)]
    assert spent[:2] == [12, 12]
    assert max(spent[2:]) <= 1.5


def test_the_choice_of_each_iteration(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, config(iterations=10, actions=7))
    trainer.train()
    policy = bet_of(trainer)
    fresh = FitnessPredictor(policy.sorted, DIM, seed=0)
    for iteration in range(1, 11):
        drawn = [ranges(policy.sampler.draw(iteration, number), DIM) for number in range(7)]
        if iteration % 5 == 3:
            expected = 0
        elif iteration % 5 == 4:
            best = policy.fittest(iteration)[0]
            with torch.no_grad():
                embedded = fresh.embed(drawn)
                centre = fresh.embed([ranges(policy._action(best), DIM)])
            expected = int(torch.cdist(embedded, centre).argmin())
        else:
            expected = int(fresh.scores(drawn).argmax())
        assert policy.trials[iteration - 1].number == expected
        seen = np.random.default_rng([0, iteration, 1 << 32]).integers(1, iteration, size=2, endpoint=True)
        for chosen in seen:
            fitness = policy.trials[chosen - 1].fitness
            assert fitness is not None
            fresh.update(ranges(policy._action(int(chosen)), DIM), fitness)


def test_a_fine_tuning_has_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    found = []
    for rate in (None, 0.02, 0.001):
        trainer = small_runs.trainer(tmp_path, config("bet_random", iterations=2, finetune_lr=rate), f"rate-{rate}")
        final = trainer.train()
        found.append((final["search"]["full_quality"], final["search"]["trials"]))
    assert trainer.config.optim.lr == 0.02
    assert found[0] == found[1]
    assert found[0][0] == found[2][0]
    assert found[0][1] != found[2][1]


def test_bet_random_takes_the_first_action_of_each_iteration(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, config("bet_random"))
    final = trainer.train()
    assert [number for number, _ in final["search"]["trials"]] == [0] * 6
    assert bet_of(trainer)._predictor is None
    assert final["policy"] == "bet_random"


@pytest.mark.parametrize("where", ["pre-training", "search 4", "search 6", "retraining-1", "retraining-2"])
def test_a_stopped_run_goes_on_with_the_same_bits(tmp_path: Path, where: str) -> None:
    whole = small_runs.trainer(tmp_path, config(iterations=7), "whole")
    expected = whole.train()
    stopped = small_runs.trainer(tmp_path, config(iterations=7), "stopped")

    def watch(stage: str, epoch: int, share: float) -> None:
        if stage == where and epoch == 1:
            stopped.request_stop(signal.SIGTERM)

    stopped.on_chunk = watch
    with pytest.raises(Interrupted):
        stopped.train()
    again = small_runs.trainer(tmp_path, config(iterations=7), "stopped")
    again.resume()
    found = again.train()
    assert found["search"] == expected["search"]
    for name in ("best", "retraining-1", "retraining-2"):
        left, right = (load_table(each.run_folder.checkpoint(name)) for each in (whole, again))
        assert torch.equal(left.values, right.values)
        assert torch.equal(left.index, right.index)
    keys = ("event", "stage", "epoch", "loss", "nnz", "bytes", "valid_recall@20", "test_recall@20", "best_epoch")
    facts = [[{key: row.get(key) for key in keys} for row in each.run_folder.rows()] for each in (whole, again)]
    assert facts[0] == facts[1]


def test_a_search_does_not_depend_on_threads(tmp_path: Path) -> None:
    found = []
    for threads in (1, 2):
        settings = config(iterations=5)
        settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, threads=threads))
        trainer = small_runs.trainer(tmp_path, settings, f"threads-{threads}")
        found.append(trainer.train())
    for key in ("search", "test_recall@20", "best_valid_recall@20"):
        assert found[0][key] == found[1][key]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_sixteen_bits(tmp_path: Path, dtype: str) -> None:
    settings = config(budget="30%")
    model: Any = dataclasses.replace(settings.model, dtype=dtype)
    trainer = small_runs.trainer(tmp_path, dataclasses.replace(settings, model=model))
    final = trainer.train()
    assert load_table(trainer.run_folder.checkpoint("best")).dtype == getattr(torch, dtype)
    assert final["bytes"]["values"] + final["bytes"]["index"] <= 0.3 * ROWS * DIM * 4


def test_end_to_end_on_the_demo_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data=demo", "--policy=bet,bet_random", "--budget=15%", f"--folder={tmp_path}", "--model.dim=32"]
    flags += ["--train.epochs=2", "--optim.lr=0.01", "--policy.bet.finetune_epochs=1", "--policy.bet.iterations=3"]
    assert main(["compare", *flags, "--policy.bet.retrain=1", "--policy.bet.actions=10"]) == 0
    rows = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(rows) == 2
    for name in ("bet", "bet_random"):
        (final,) = [row for row in RunFolder(tmp_path / f"mf-{name}-15pct-s0").rows() if row["event"] == "final"]
        table = load_table(tmp_path / f"mf-{name}-15pct-s0" / "checkpoint" / "best")
        assert table.nbytes()["total"] <= 0.15 * table.rows * 32 * 4
        assert final["kind"] == "prefix"
        assert final["test_recall@20"] > 0
    assert main(["eval", "--run", str(tmp_path / "mf-bet-15pct-s0"), "--split", "test"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--policy.budget=5%"], "affords less than one weight a row"),
        (["--policy.density=0.001"], "affords less than one weight a row"),
        ([], "needs a size"),
        (["--policy.budget=20%", "--policy.kind=bits"], "stores kind prefix; leave policy.kind at auto"),
        (["--policy.budget=20%", "--train.checkpoint=false"], "leave train.checkpoint at true"),
        (["--policy.budget=20%", "--policy.bet.retrain=9"], "policy.bet.retrain is 9"),
        (["--policy.budget=20%", "--policy.bet.iterations=0"], "policy.bet.iterations is 0"),
        (["--policy.budget=20%", "--policy.bet.actions=0"], "policy.bet.actions is 0"),
        (["--policy.budget=20%", "--policy.bet.finetune_lr=0"], "policy.bet.finetune_lr is 0"),
        (["--policy.budget=20%", "--data.path=billion"], "billion is streamed"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    data = str(small_runs.write_folder(tmp_path / "data"))
    common = [f"--data.path={data}", "--policy.name=bet", "--model.dim=16", f"--run.folder={tmp_path}"]
    assert main(["train", *common, "--policy.bet.iterations=4", *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_the_least_budget_that_is_named_is_enough(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the least is (\d+\.?\d*%)") as refused:
        small_runs.trainer(tmp_path, config(budget="3%"))
    least = str(refused.value).rsplit(" ", 1)[-1]
    policy = bet_of(small_runs.trainer(tmp_path, config(budget=least)))
    assert policy.sampler.budget >= ROWS


def test_quality_is_a_mean_over_cut_offs() -> None:
    values = {f"{name}@{k}": k / 100 for name in ("recall", "ndcg") for k in (5, 10, 20)}
    assert quality(values | {"hit@20": 7.0}) == pytest.approx(0.35 / 3)


def test_kept_slots_are_the_first_of_each_row() -> None:
    sizes = torch.tensor([3, 0, 1, 4])
    assert kept_slots(sizes, 4).tolist() == [0, 1, 2, 8, 12, 13, 14, 15]


def test_a_pretraining_that_finds_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: Any, **options: Any) -> Metrics:
        found = evaluate(*args, **options)
        return dataclasses.replace(found, values=dict.fromkeys(found.values, 0.0))

    monkeypatch.setattr("recsparse.train.evaluate", nothing)
    trainer = small_runs.trainer(tmp_path, config())
    with pytest.raises(UserError, match=r"finds nothing that is looked for; raise train\.epochs"):
        trainer.train()


def test_only_the_retrained_tables_are_kept_beside_two_working_ones(tmp_path: Path) -> None:
    trainer = small_runs.trainer(tmp_path, config())
    trainer.train()
    names = {each.name for each in trainer.run_folder.checkpoint("best").parent.iterdir()}
    assert names == {"best", "last", "pretrained", "fine-tuned", "retraining-1", "retraining-2"}
