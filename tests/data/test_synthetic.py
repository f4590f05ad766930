from __future__ import annotations

import numpy as np
import pytest
import torch

from recsparse.data import PRESETS, SyntheticStream, generate, stream
from recsparse.errors import UserError
from recsparse.evaluate import evaluate, popularity_baseline
from recsparse.reference.sample import synthetic_items, synthetic_places


@pytest.mark.parametrize("name", ["demo", "kwai-paper", "tiktok-paper"])
def test_preset_has_its_published_counts(name):
    preset, data = PRESETS[name], generate(name)
    whole = data.train.union(data.valid).union(data.test)
    assert (data.n_users, data.n_items) == (preset.n_users, preset.n_items)
    assert whole.nnz == data.train.nnz + data.valid.nnz + data.test.nnz == preset.pairs
    assert (whole.degrees() > 0).all()
    assert (whole.popularity(data.n_items) > 0).all()
    shares = [part.nnz / whole.nnz for part in (data.train, data.valid, data.test)]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.01)


def test_published_counts_themselves():
    counts = {name: (p.n_users, p.n_items, p.pairs) for name, p in PRESETS.items()}
    assert counts["kwai-paper"] == (7_010, 80_631, 292_042)
    assert counts["tiktok-paper"] == (36_638, 97_117, 746_546)
    assert counts["tiktok-scale"] == (100_000_000, 10_000_000, None)


def test_same_content_every_time_and_other_content_for_another_seed():
    assert generate("demo").hash == generate("demo").hash
    assert generate("demo", seed=1).hash != generate("demo").hash
    paper = generate("demo", protocol="paper")
    assert paper.valid.nnz == 0
    assert np.array_equal(paper.test.items, generate("demo").test.items)


def test_materialised_rows_hold_the_stream():
    s = SyntheticStream(50, 700, seed=4, min_degree=3, max_degree=30)
    data = s.materialise(1500, test_fraction=0.2, valid_fraction=0.1)
    whole = data.train.union(data.valid).union(data.test)
    places, degrees = synthetic_places(torch.arange(50), 700, 3, 30, 4)
    items = synthetic_items(places, 700, 4)
    assert s.expected_interactions == pytest.approx(int(degrees.sum()), rel=0.25)
    for user in range(50):
        assert set(items[user, : degrees[user]].tolist()) <= set(whole.row(user).tolist())


def test_expected_interactions_of_a_large_stream():
    s = stream("demo")
    degrees = synthetic_places(torch.arange(s.n_users), s.n_items, s.min_degree, s.max_degree, s.seed)[1]
    assert s.expected_interactions == pytest.approx(int(degrees.sum()), rel=0.02)


def test_popularity_falls_off_but_does_not_explain_taste():
    data = generate("demo")
    counts = np.sort(data.popularity)[::-1]
    assert counts[:40].sum() > 8 * counts[2000:2040].sum()  # a head far above the middle
    # Taste is planted in clusters: users who share an item share far more items than popularity alone would make them.
    dense = np.zeros((data.n_users, data.n_items), np.float32)
    dense[np.repeat(np.arange(data.n_users), data.train.degrees()), data.train.items] = 1
    both = (dense.T @ dense)[:300, :300]
    np.fill_diagonal(both, 0)
    chance = np.outer(data.popularity[:300], data.popularity[:300]) / data.n_users
    assert (both[both > 3 * chance].sum()) > 0.25 * both.sum()


def test_impossible_requests():
    s = SyntheticStream(20, 50, min_degree=2, max_degree=10)
    with pytest.raises(UserError, match="already make"):
        s.materialise(10, test_fraction=0.2, valid_fraction=0.1)
    with pytest.raises(UserError, match="runs out"):
        s.materialise(20 * 50 + 1, test_fraction=0.2, valid_fraction=0.1)
    with pytest.raises(UserError, match="unknown preset 'demos'"):
        generate("demos")
    with pytest.raises(UserError, match="streamed, never materialised"):
        generate("tiktok-scale")


def test_learning_beats_popularity():
    """Truncated SVD of the train matrix, a model of a few lines, is far above the popularity ranking."""
    data = generate("demo")
    dense = torch.zeros(data.n_users, data.n_items)
    owners = np.repeat(np.arange(data.n_users), data.train.degrees())
    dense[torch.from_numpy(owners), torch.from_numpy(data.train.items).long()] = 1
    torch.manual_seed(0)
    _, _, right = torch.svd_lowrank(dense, q=32, niter=2)
    learned = evaluate((dense @ right, right.contiguous()), data, split="test")
    assert learned["recall@20"] >= 1.5 * popularity_baseline(data)["recall@20"]
