from __future__ import annotations

from pathlib import Path

import pytest
import small_runs
import torch

from recsparse import policies
from recsparse.policies.rotation import open_columns, rotate
from recsparse.table import PackedTable
from recsparse.train import Trainer, check_invariants

ROWS, DIM, KEPT = 50, 12, 150


def table(kind: str = "bits") -> PackedTable:
    return PackedTable.init(ROWS, DIM, kind=kind, capacity=KEPT, start="prefix", seed=3, std=0.1)


@pytest.mark.parametrize("kind", ["bits", "cols8"])
def test_column_mask_is_a_column_of_the_mask(kind: str) -> None:
    packed = PackedTable.init(ROWS, DIM, kind=kind, capacity=KEPT, start="bernoulli", seed=1)
    mask = packed.mask()
    for column in range(DIM):
        assert torch.equal(packed.column_mask(column), mask[:, column])
    with pytest.raises(IndexError, match=r"column is 12, expected 0\.\.11"):
        packed.column_mask(DIM)


@pytest.mark.parametrize("kind", ["bits", "cols8"])
@pytest.mark.parametrize("limit", [7, 1000])
def test_rotation_drops_the_smallest_and_opens_untried_columns(kind: str, limit: int) -> None:
    packed = table(kind)
    packed.values.copy_(torch.randperm(KEPT).float() + 1)
    before, mask = packed.to_dense(), packed.mask()
    rotate(packed, 1, share=0.4, seed=3, std=0.1, limit=limit)
    after = packed.mask()
    assert packed.nnz == KEPT
    survivors = mask & (before > 60)  # 60 = 0.4 * 150 smallest of 1..150 leave
    assert torch.equal(after & mask, survivors)
    opened = after & ~mask
    assert int(opened.sum()) == 60
    # Three columns a row were kept: the round opens column 3 for all rows and column 4 for ten of them.
    assert opened[:, 3].all()
    assert int(opened[:, 4].sum()) == 10
    assert not opened[:, 5:].any()
    packed.check_invariants()


def test_every_weight_is_rewound_to_its_initial_value() -> None:
    packed, dense = (
        table(),
        PackedTable.init(ROWS, DIM, kind="full", capacity=ROWS * DIM, start="full", seed=3, std=0.1),
    )
    packed.values.add_(1.0)
    rotate(packed, 1, share=0.3, seed=3, std=0.1, limit=100)
    assert torch.equal(packed.to_dense(), dense.to_dense() * packed.mask())


def test_later_rounds_go_on_where_the_last_one_stopped_and_wrap_around() -> None:
    packed = table()
    seen = packed.mask()
    for number in range(1, 8):
        before = packed.mask()
        rotate(packed, number, share=0.3, seed=3, std=0.1, limit=1000)
        opened = packed.mask() & ~before
        assert opened[:, (3 + number - 1) % DIM].any()
        seen |= packed.mask()
        assert packed.nnz == KEPT
    assert seen.any(0)[:10].all()


def test_opening_more_than_there_is_room_for_opens_what_there_is() -> None:
    packed = PackedTable.init(ROWS, DIM, kind="bits", capacity=ROWS * DIM, start="full", seed=3)
    assert open_columns(packed, 0, 10, seed=0, limit=100) == 0


def test_rotate_runs_its_rounds_then_one_training_and_stays_within_the_budget(tmp_path: Path) -> None:
    settings = small_runs.config("dsl", mode="rotate", rounds=2, round_epochs=1, epochs=2)
    trainer = small_runs.trainer(tmp_path, settings)
    capacity = trainer.stage.table.capacity
    names = []
    original = Trainer._train_stage

    def record(self: Trainer) -> None:
        names.append((self.stage.name, self.stage.epochs))
        assert self.stage.optimizer.step == 0
        original(self)
        check_invariants(self.stage)
        assert self.stage.table.nnz <= self.stage.table.capacity == capacity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_stage", record)
        final = trainer.train()
    assert names == [("round 0", 1), ("round 1", 1), ("train", 2)]
    assert final["test_recall@20"] > 0
    assert policies.find("dsl").name == "dsl"
