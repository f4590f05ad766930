"""bpr_grow_scores in Triton against the native op."""

from __future__ import annotations

import pytest
import torch
from strategies import random_triples
from torch import Tensor
from triton_tables import INTERPRETED, bpr_grow_scores, on_device, pair

from recsparse import ops

USERS, ITEMS = 40, 50


def assert_close(kind: str, dim: int, triples: tuple[Tensor, ...], limit: int = 10**6) -> int:
    native, triton = pair(kind, USERS + ITEMS, dim, seed=dim, scale=0.3)
    keys, scores = ops.bpr_grow_scores(native, *triples, item_offset=USERS, limit=limit)
    moved = tuple(tensor.to(triton.values.device) for tensor in triples)
    found, found_scores = (x.cpu() for x in ops.bpr_grow_scores(triton, *moved, item_offset=USERS, limit=limit))
    # What cancels to nothing in one order of the additions may leave 1e-10 in another.
    some, found_some = scores > 1e-7, found_scores > 1e-7
    assert torch.equal(found[found_some], keys[some])
    torch.testing.assert_close(found_scores[found_some], scores[some], rtol=1e-5, atol=1e-7)
    return int(some.sum())


@pytest.mark.parametrize("kind", ["prefix", "bits", "cols8"])
@pytest.mark.parametrize("dim", [1, 64, 256])
def test_equals_the_native_op(kind: str, dim: int) -> None:
    triples = random_triples(30, USERS, ITEMS, seed=dim)
    found = assert_close(kind, dim, triples)
    assert dim == 1 or found > 30
    assert assert_close(kind, dim, triples, limit=30) == min(found, 30)


def test_a_row_that_occurs_very_often() -> None:
    users, pos, neg = random_triples(100, USERS, ITEMS)
    pos[:70], users[20:95] = 3, 7
    assert assert_close("bits", 33, (users, pos, neg), limit=200) == 200


def test_rows_in_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpr_grow_scores, "CHUNK_SLOTS", 20 * 33)
    triples = random_triples(30, USERS, ITEMS)
    assert assert_close("bits", 33, triples, limit=100) == 100
    assert_close("bits", 33, triples)


def test_nothing_to_score() -> None:
    assert assert_close("bits", 33, random_triples(0, USERS, ITEMS)) == 0
    assert assert_close("full", 33, random_triples(20, USERS, ITEMS)) == 0
    assert assert_close("bits", 33, random_triples(20, USERS, ITEMS), limit=0) == 0


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU a bad id is a device-side assertion, which ends the process")
def test_a_bad_id_is_named() -> None:
    triples = random_triples(9, USERS, ITEMS)
    triples[2][4] = ITEMS
    with pytest.raises(IndexError, match=rf"bpr_grow_scores: neg\[4\] = {ITEMS} is out of range, expected 0\.\.49"):
        ops.bpr_grow_scores(pair("bits", 90, 33)[1], *on_device(*triples), item_offset=USERS, limit=5)
