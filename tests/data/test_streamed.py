from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recsparse import _host
from recsparse.cli import main
from recsparse.data import PRESETS, Sampler, StreamedDataset, SyntheticStream, streamed
from recsparse.data import presets as preset_module
from recsparse.errors import UserError
from recsparse.evaluate import evaluate
from recsparse.reference.sample import synthetic_items, synthetic_places

STREAM = SyntheticStream(3_000, 700, seed=4, min_degree=12, max_degree=90, name="little")


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> StreamedDataset:
    """A preset of a size that trains in seconds, of the kind that is only streamed."""
    preset = dataclasses.replace(PRESETS["tiktok-scale"], n_users=3_000, n_items=700, min_degree=12, max_degree=90)
    monkeypatch.setitem(preset_module.PRESETS, "little", preset)
    return streamed("little", eval_users=500)


def test_rows_are_those_of_the_stream() -> None:
    users = np.array([0, 7, 7, 2_999], np.int64)
    places, degrees = synthetic_places(torch.from_numpy(users), 700, 12, 90, 4)
    items = synthetic_items(places, 700, 4)
    data = StreamedDataset(STREAM, eval_users=50)
    own = data.seen(users, "valid")
    for row in range(len(users)):
        assert own.row(row).tolist() == sorted(set(items[row, : degrees[row]].tolist()))
    both = data.seen(users, "test")
    assert (both.degrees() >= own.degrees()).all()
    assert both.nnz > own.nnz


def test_positives_are_seen_and_what_is_wanted_is_not() -> None:
    data = StreamedDataset(STREAM, eval_users=50)
    users, positives, _ = Sampler(data, seed=3).draw(0, 4_000)
    own = data.seen(users.numpy(), "valid")
    assert all(positives[n] in own.row(n) for n in range(len(users)))
    for split in ("valid", "test"):
        target = data.target(split)
        assert (target.wanted.degrees() > 0).all()
        assert len(target.users) > 40
        assert set(target.users.tolist()) <= set(data.sampled.tolist())
        for row, user in enumerate(target.users):
            assert not set(target.wanted.row(row)) & set(target.seen.row(row))
            assert np.array_equal(target.seen.row(row), data.seen(np.array([user]), split).row(0))
    valid, test = data.target("valid"), data.target("test")
    both = np.intersect1d(valid.users, test.users)
    for user in both:
        rows = [t.wanted.row(int(np.searchsorted(t.users, user))).tolist() for t in (valid, test)]
        assert not set(rows[0]) & set(rows[1])


def test_the_seed_of_the_draws_is_not_that_of_the_tastes() -> None:
    data = StreamedDataset(STREAM)
    one, same, other = (Sampler(data, seed=seed).draw(5, 300) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    users, positives, _ = other
    own = data.seen(users.numpy(), "valid")
    assert all(positives[n] in own.row(n) for n in range(len(users)))


def test_hash_follows_the_recipe() -> None:
    data = StreamedDataset(STREAM)
    assert data.hash == StreamedDataset(dataclasses.replace(STREAM, name="other")).hash
    assert data.hash != StreamedDataset(dataclasses.replace(STREAM, seed=5)).hash
    assert data.hash != StreamedDataset(STREAM, eval_users=7).hash


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="unknown split 'train'"):
        StreamedDataset(STREAM).target("train")
    with pytest.raises(ValueError, match="a user is out of range"):
        _host.streamed_rows(3_000, 700, 12, 90, 4, np.array([3_000], np.int64), 0, 0)
    with pytest.raises(ValueError, match="skip and count"):
        _host.streamed_rows(3_000, 700, 12, 90, 4, np.array([0], np.int64), 0, 2_000)


def test_train_and_eval_on_a_streamed_preset(
    little: StreamedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data.path", "little", "--data.eval_users", "500", "--model.dim", "16", "--policy.budget", "60%"]
    flags += ["--train.epochs", "4", "--train.epoch_draws", "60000", "--train.eval_every", "2", "--optim.lr", "0.02"]
    flags += ["--policy.dsl.mode", "fresh", "--train.batch_size", "512", "--run.folder", str(tmp_path)]
    assert main(["train", *flags, "--run.name", "kept"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "kept" / "metrics.jsonl").read_text().splitlines()]
    final = rows[-1]
    assert final["data_hash"] == little.hash
    assert 400 < final["test_users"] <= 500
    assert final["test_recall@20"] > 2 * 20 / 700  # twice what chance finds
    capsys.readouterr()
    assert main(["eval", "--run", str(tmp_path / "kept"), "--split", "test", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["recall@20"] == final["test_recall@20"]

    assert main(["train", *flags, "--run.name", "bare", "--train.checkpoint", "false"]) == 0
    bare = [json.loads(line) for line in (tmp_path / "bare" / "metrics.jsonl").read_text().splitlines()]
    assert not (tmp_path / "bare" / "checkpoint").exists()
    assert [row.get("loss") for row in bare] == [row.get("loss") for row in rows]
    capsys.readouterr()
    assert main(["eval", "--run", str(tmp_path / "bare")]) == 2
    assert "kept no checkpoint" in capsys.readouterr().err
    assert main(["train", *flags, "--model.name", "lightgcn"]) == 2
    assert "little is streamed; use mf" in capsys.readouterr().err


def test_evaluation_ranks_the_sampled_users_alone(little: StreamedDataset) -> None:
    rows = torch.randn(3_000, 4), torch.randn(700, 4)
    metrics = evaluate(rows, little, split="test", ks=(20,))
    target = little.target("test")
    assert metrics.users == len(target.users)
    assert metrics.dropped_users == 3_000 - metrics.users
