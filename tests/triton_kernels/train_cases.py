"""Whole training runs on Triton, as on a GPU without CUDA kernels, against the same runs on native ops."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from small_runs import config, trainer
from triton_tables import DEVICE

from recsparse.backend import resolve_backend
from recsparse.train import Trainer


def on_triton_only(request: str, device: str = "cpu") -> str:
    return resolve_backend("triton" if request == "auto" else request, device)


def run(folder: Path, model: str, device: str) -> Trainer:
    """Two epochs with updates of the mask between; the trainer checks table and state after every chunk."""
    options = {"epochs": 2, "epoch_draws": 256, "batch_size": 64, "every": "3 steps", "grow_triples": 128}
    options["start"] = "bernoulli"  # rows with the same columns have no gradient elsewhere
    out = trainer(folder, config(model=model, eval_every=1, device=device, **options))
    out.train()
    return out


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_equals_a_run_on_native_ops(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = run(tmp_path / "native", model, "cpu")
    for name in ("table", "ops.pack", "ops.rank", "ops.sample", "ops.select"):
        monkeypatch.setattr(importlib.import_module(f"recsparse.{name}"), "resolve_backend", on_triton_only)
    triton = run(tmp_path / "triton", model, DEVICE.type)
    assert triton.stage.table.backend == "triton"
    pairs = list(zip(triton.run_folder.rows(), native.run_folder.rows(), strict=True))
    for found, want in pairs[:-1]:
        assert found["loss"] == pytest.approx(want["loss"], rel=1e-5)
        assert (found["dropped"], found["grown"]) == (want["dropped"], want["grown"])
        assert found["nnz"] == want["nnz"]
    assert len(pairs) == 3
    assert sum(row["grown"] for row, _ in pairs[:-1]) > 0
    assert pairs[-1][0]["test_recall@20"] == pytest.approx(pairs[-1][1]["test_recall@20"], abs=0.01)
