"""LightGCN through the trainer: every policy learns, stops and resumes; what is ranked is the propagated table."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_runs
import torch

from recsparse import ops
from recsparse.cli import main
from recsparse.evaluate import evaluate
from recsparse.graph import Graph
from recsparse.models import LightGCN, build
from recsparse.nn import SparseEmbedding
from recsparse.reference.lightgcn_step import layer_mean
from recsparse.table import PackedTable
from recsparse.train import Interrupted, Trainer

POLICIES = ["dense", "small_dense", "dsl"]


def run(folder: Path, policy: str, name: str, **options: object) -> Trainer:
    settings = small_runs.config(policy, model="lightgcn", epochs=6, every="5 steps", **options)  # type: ignore[arg-type]
    return small_runs.trainer(folder, settings, name)


@pytest.mark.parametrize("policy", POLICIES)
def test_learns_stops_and_resumes(tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsparse.train.CHUNK_STEPS", 4)
    whole = run(tmp_path, policy, "whole")
    untrained = evaluate(whole.model.for_ranking(whole.stage.table), whole.dataset, split="test").values["recall@20"]
    final = whole.train()
    assert final["model"] == "lightgcn"
    losses = [row["loss"] for row in whole.run_folder.rows() if row["event"] == "epoch"]
    assert losses[-1] < 0.9 * losses[0]
    assert final["test_recall@20"] > untrained
    stopped = run(tmp_path, policy, "stopped")
    stopped.on_chunk = lambda stage, epoch, share: stopped.request_stop(15) if epoch == 2 and share > 0.5 else None
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = run(tmp_path, policy, "stopped")
    resumed.resume()
    again = resumed.train()
    assert again["test_recall@20"] == final["test_recall@20"]
    for name, tensor in whole.stage.table.state_dict().items():
        assert torch.equal(tensor, resumed.stage.table.state_dict()[name])


def test_rotation_searches_with_lightgcn_too(tmp_path: Path) -> None:
    settings = small_runs.config("dsl", model="lightgcn", epochs=2, mode="rotate", rounds=2, round_epochs=2)
    trainer = small_runs.trainer(tmp_path, settings)
    trainer.train()
    assert trainer.progress.stage == 2


def test_ranks_by_the_mean_of_the_layers(tmp_path: Path) -> None:
    data = small_runs.dataset(tmp_path)
    graph = Graph.from_interactions(data.train, data.n_items)
    model = LightGCN(graph, l2=0.0, layers=3)
    table = PackedTable.init(model.rows, 16, kind="bits", capacity=700, seed=1)
    users, items = model.for_ranking(table)
    want = layer_mean(graph.tensors, table.to_dense(), 3, False)
    torch.testing.assert_close(torch.cat([users, items]), want)


def test_eval_propagates_as_training_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small_runs.write_folder(tmp_path / "data")
    arguments = f"--data.path {folder} --model.name lightgcn --model.dim 8 --model.layers 2 --policy.name dense"
    lengths = "--train.epochs 2 --train.eval_every 2 --train.batch_size 256 --run.name one"
    assert main(["train", *arguments.split(), *lengths.split(), "--run.folder", str(tmp_path / "runs")]) == 0
    trained = capsys.readouterr().out
    assert main(["eval", "--run", str(tmp_path / "runs" / "one"), "--split", "test"]) == 0
    evaluated = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert f"recall@20 {float(evaluated['recall@20']):.4f}" in trained


def test_layers_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small_runs.write_folder(tmp_path / "data")
    arguments = [
        "--data.path",
        str(folder),
        "--model.name",
        "lightgcn",
        "--model.layers",
        "0",
        "--policy.name",
        "dense",
    ]
    assert main(["train", *arguments]) == 2
    assert "model.layers is 0" in capsys.readouterr().err


def test_a_torch_model_of_ones_own(tmp_path: Path) -> None:
    """spmm and SparseEmbedding in a plain torch model: its gradient is that of the fused op."""
    data = small_runs.dataset(tmp_path)
    graph = Graph.from_interactions(data.train, data.n_items)
    emb = SparseEmbedding(graph.nodes, 16, density=0.3)
    everyone = torch.arange(graph.nodes)
    users, pos, neg = (torch.randint(0, 80, (64,)) for _ in range(3))
    optimizer = torch.optim.Adam(emb.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        layer = mean = emb(everyone)
        for _ in range(3):
            layer = ops.spmm(graph, layer)
            mean = mean + layer
        u, i, j = (mean[rows] / 4 for rows in (users, graph.n_users + pos, graph.n_users + neg))
        loss = torch.nn.functional.softplus((u * j).sum(1) - (u * i).sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_the_configuration_chooses_the_model(tmp_path: Path) -> None:
    data = small_runs.dataset(tmp_path)
    settings = small_runs.config("dense", model="lightgcn")
    settings.model.layers, settings.model.hidden = 2, "bfloat16"
    model = build(settings, data)
    assert isinstance(model, LightGCN)
    assert (model.layers, model.hidden, model.graph.edges) == (2, torch.bfloat16, data.train.nnz)
