"""Baselines of the sparse policies: a random mask, and the dense table quantised after training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import small_runs
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsparse import cli
from recsparse.checkpoint import load_table
from recsparse.config import Config
from recsparse.evaluate import evaluate
from recsparse.int8 import Int8Table
from recsparse.policies.random_mask import complete
from recsparse.report import Result
from recsparse.table import PackedTable
from recsparse.train import Interrupted, Trainer

ROWS, DIM = small_runs.USERS + small_runs.ITEMS, 16
SLOTS = ROWS * DIM


def config(policy: str, *, model: str = "mf", **options: object) -> Config:
    settings = small_runs.config("dense", model=model, **options)  # type: ignore[arg-type]
    density = 0.3 if policy == "random_mask" else None
    return dataclasses.replace(settings, policy=dataclasses.replace(settings.policy, name=policy, density=density))


def recall(trainer: Trainer, table: PackedTable, split: str = "test") -> float:
    return evaluate(trainer.model.for_ranking(table), trainer.dataset, split=split).values["recall@20"]


def test_a_random_mask_is_exact_and_stays(tmp_path: Path) -> None:
    masks = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        trainer = small_runs.trainer(tmp_path, config("random_mask", seed=seed), name)
        start = trainer.stage.table.mask()
        assert trainer.stage.table.nnz == trainer.stage.table.capacity == round(0.3 * SLOTS)
        final = trainer.train()
        assert final["nnz"] == round(0.3 * SLOTS)
        assert torch.equal(load_table(trainer.run_folder.checkpoint("best")).mask(), start)
        masks.append(start)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    # 30 % of random slots: of the 60 % that two such masks would share at most, about 9 % are in both.
    assert int((masks[0] & masks[2]).sum()) == pytest.approx(0.09 * SLOTS, rel=0.2)


def test_a_random_mask_is_spread_over_rows_and_columns(tmp_path: Path) -> None:
    mask = small_runs.trainer(tmp_path, config("random_mask")).stage.table.mask()
    assert int(mask.sum(0).min()) > 0.15 * ROWS
    assert int(mask.sum(1).max()) <= 13  # 16 binomial slots at 0.3
    assert mask.sum(1).unique().numel() > 4


@pytest.mark.parametrize("kind", ["bits", "cols8"])
@pytest.mark.parametrize("left", [1, 3, 400])
def test_open_slots_of_a_start_are_filled(kind: str, left: int) -> None:
    def table() -> PackedTable:
        mask = torch.rand(300, 24, generator=torch.Generator().manual_seed(1)) < 0.2
        return PackedTable.from_dense(torch.ones(300, 24), mask, kind=kind, capacity=int(mask.sum()) + left)

    filled, again, before = table(), table(), table()
    for each in (filled, again):
        complete(each, 7, 0.01)
    filled.check_invariants()
    assert filled.nnz == filled.capacity
    assert bool((filled.mask() | ~before.mask()).all())  # nothing left
    assert torch.equal(filled.to_dense(), again.to_dense())
    fresh = PackedTable.init(300, 24, kind="full", capacity=7200, start="full", seed=7, std=0.01).to_dense()
    assert torch.equal(filled.to_dense(), fresh * filled.mask())


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000), st.sampled_from([1e-30, 1e-3, 1.0, 1e6]))
def test_int8_rounds_to_the_nearest_code(rows: int, dim: int, seed: int, size: float) -> None:
    dense = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)) * size
    dense[seed % rows] = 0
    stored = Int8Table.quantise(dense)
    stored.check_invariants()
    assert stored.nbytes()["total"] == rows * (dim + 4)
    assert sum(tensor.numel() * tensor.element_size() for tensor in stored.state_dict().values()) == rows * (dim + 4)
    step = dense.double().abs().amax(1, keepdim=True) / 127
    back = stored.table().to_dense()
    assert bool(((back.double() - dense.double()).abs() <= step * 0.5001).all())
    assert not back[seed % rows].any()
    largest = dense.abs().amax(1)
    assert torch.allclose(back.abs().amax(1), largest, rtol=1e-6, atol=0)


def test_int8_of_weights_below_the_least_scale_is_finite() -> None:
    stored = Int8Table.quantise(torch.full((2, 3), 1e-45))
    assert torch.isfinite(stored.table().values).all()


@pytest.mark.parametrize(
    ("policy", "dtype", "row_bytes"), [("dense_fp16", "float16", 2 * DIM), ("dense_int8", "int8", DIM + 4)]
)
@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_the_trained_dense_table_is_quantised(
    tmp_path: Path, policy: str, dtype: str, row_bytes: int, model: str
) -> None:
    dense = small_runs.trainer(tmp_path, config("dense", model=model), "dense")
    plain = dense.train()
    trained = load_table(dense.run_folder.checkpoint("best"))
    trainer = small_runs.trainer(tmp_path, config(policy, model=model), policy)
    final = trainer.train()
    kept = load_table(trainer.run_folder.checkpoint("best"))
    # The training is that of dense, bit for bit; what is tested and kept are its weights, rounded.
    assert torch.equal(load_table(trainer.run_folder.checkpoint("dense")).values, trained.values)
    if policy == "dense_fp16":
        assert torch.equal(kept.values, trained.values.half())
    else:
        assert torch.equal(kept.to_dense(), Int8Table.quantise(trained.to_dense()).table().to_dense())
    assert final["test_recall@20"] == recall(trainer, kept)
    assert final["best_valid_recall@20"] == recall(trainer, kept, "valid")
    assert final["test_recall@20"] == pytest.approx(plain["test_recall@20"], abs=0.02)
    assert final["dtype"] == dtype
    assert final["nnz"] == SLOTS
    assert final["bytes"]["values"] + final["bytes"]["index"] == ROWS * row_bytes
    result = Result.read(trainer.run_folder)
    assert result.table_bytes == ROWS * row_bytes
    assert result.state_bytes == 12 * SLOTS == Result.read(dense.run_folder).state_bytes
    assert len(result.epochs) == 4
    assert [key for key in result.epochs[-1] if "recall" in key]


def test_a_run_that_stops_while_training_is_still_quantised(tmp_path: Path) -> None:
    whole = small_runs.trainer(tmp_path, config("dense_int8"), "whole")
    expected = whole.train()
    stopped = small_runs.trainer(tmp_path, config("dense_int8"), "stopped")
    stopped.on_chunk = lambda stage, epoch, share: stopped.request_stop(15) if epoch == 2 else None
    with pytest.raises(Interrupted):
        stopped.train()
    again = small_runs.trainer(tmp_path, config("dense_int8"), "stopped")
    again.resume()
    final = again.train()
    for key in ("test_recall@20", "test_ndcg@20", "bytes", "nnz", "kind"):
        assert final[key] == expected[key]


def test_quantised_runs_are_evaluated_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = small_runs.write_folder(tmp_path / "tiny")
    flags = [f"--data.path={data}", "--train.epochs=2", "--train.batch_size=64", "--model.dim=16", "--optim.lr=0.02"]
    flags += [f"--run.folder={tmp_path}", "--run.name=run", "--policy.name=dense_int8", "--data.protocol=paper"]
    assert cli.main(["train", *flags]) == 0
    shown = capsys.readouterr().out
    assert "quantise: test recall@20" in shown
    assert "TEST-SELECTED" in shown
    assert cli.main(["eval", "--run", str(tmp_path / "run")]) == 0
    value = float(capsys.readouterr().out.split("recall@20")[1].split()[0])
    final = Result.read(small_runs.RunFolder(tmp_path / "run")).final
    assert value == pytest.approx(final["test_recall@20"], abs=1e-5)
