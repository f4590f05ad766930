from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_runs

from recsparse.bench import epoch, graph_memory
from recsparse.errors import UserError

CODE = {
    "world": "config = {'bpr_batch_size': 64}",
    "dataloader": "class Loader:\n    n_users = 120\n    def __init__(self, path):\n        open(path + '/train.txt')",
    "model": """
import torch
class LightGCN(torch.nn.Module):
    def __init__(self, config, dataset):
        super().__init__()
        self.embedding_user, self.embedding_item = torch.nn.Embedding(120, 64), torch.nn.Embedding(80, 64)
""",
    "utils": """
import numpy
sample_ext = False
def UniformSample_original(dataset): return numpy.zeros((200, 3), int)
def shuffle(*parts): return parts
class BPRLoss:
    def __init__(self, network, config): pass
    def stageOne(self, users, pos, neg): assert len(users)
""",
    "Procedure": "def Test(dataset, network, epoch): return {'recall': [0.5], 'ndcg': [0.5]}",
}


def test_rows_of_an_epoch_and_of_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = small_runs.write_folder(tmp_path / "data"), tmp_path / "rows.json"
    flags = ["--batches", "3", "--threads", "1", "--json", str(file)]
    assert epoch.main([str(folder), *flags]) == 0
    rows = json.loads(file.read_text())
    assert {row["op"] for row in rows} == {"lightgcn_epoch", "lightgcn_evaluation"}
    assert all(row["correct"] and row["units_per_s"] > 0 for row in rows)
    assert "lightgcn_evaluation" in capsys.readouterr().out

    checkout = tmp_path / "checkout" / "code"
    checkout.mkdir(parents=True)
    for name, text in CODE.items():
        (checkout / f"{name}.py").write_text(text)
    # Metrics that are not those of the same table: its rows are wrong, and not a measurement.
    assert epoch.main([str(folder), *flags, "--lightgcn-pytorch", str(checkout.parent)]) == 1
    theirs = [row for row in json.loads(file.read_text()) if row["provider"] == "LightGCN-PyTorch"]
    assert [row["correct"] for row in theirs] == [False, False]
    assert all(row["note"].startswith("wrong: metrics") and row["units_per_s"] is None for row in theirs)

    (checkout / "utils.py").write_text("raise RuntimeError('too old')")
    with pytest.raises(UserError, match="its code fails here: RuntimeError: too old"):
        epoch.main([str(folder), *flags, "--lightgcn-pytorch", str(checkout.parent)])
    with pytest.raises(UserError, match="no checkout of LightGCN-PyTorch"):
        epoch.main([str(folder), "--lightgcn-pytorch", str(folder)])


def test_a_packed_table_takes_less_memory_than_a_dense_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "memory.json"
    assert graph_memory.main(["--nodes", "60000", "--json", str(file)]) == 0
    found = json.loads(file.read_text())["providers"]
    ours, torchs = (found[name]["peak_bytes"] for name in graph_memory.PROVIDERS)
    assert 0 < ours < torchs
    assert found["recsparse"]["loss"] == pytest.approx(0.693, abs=0.01)
    assert "ours / torch" in capsys.readouterr().out
