from __future__ import annotations

import pytest
import torch

from recsparse.bench import inputs
from recsparse.bench.registry import Case, override
from recsparse.errors import UserError


def test_masked_dense_keeps_the_density_and_is_reproducible() -> None:
    case = Case(rows=3000, dim=64, density=0.1)
    dense = inputs.masked_dense(case, scale=0.5)
    share = float((dense != 0).double().mean())
    assert share == pytest.approx(0.1, abs=6 * (0.09 / case.slots) ** 0.5)
    kept = dense[dense != 0]
    assert float(kept.abs().max()) <= 0.5 * (1 + 1e-6)
    assert float(kept.abs().min()) >= 0.5 / 3 * (1 - 1e-6)
    assert abs(float(kept.mean())) < 0.02
    assert torch.equal(dense, inputs.masked_dense(case, scale=0.5))


def test_prefix_rows_keep_their_first_columns() -> None:
    mask = inputs.masked_dense(Case(rows=500, dim=64, density=0.2, kind="prefix")) != 0
    assert not bool((mask[:, 1:] & ~mask[:, :-1]).any())
    assert len(mask.sum(1).unique()) > 5


def test_full_needs_density_one() -> None:
    with pytest.raises(UserError, match="density"):
        inputs.masked_dense(Case(rows=5, dim=4, density=0.5, kind="full"))
    assert bool((inputs.masked_dense(Case(rows=500, dim=64, kind="full")) != 0).all())


@pytest.mark.parametrize("ids", ["uniform", "zipf:0.8", "zipf:1", "zipf:1.05"])
def test_ids_are_in_range_and_as_skewed_as_asked(ids: str) -> None:
    drawn = inputs.draw_ids(20_000, 1000, ids, inputs.generator(0))
    assert drawn.dtype == torch.int64
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < 1000
    top = torch.bincount(drawn, minlength=1000).sort(descending=True).values
    # P(rank 1) / P(ranks 1..32) of a continuous Zipf law, roughly 1/6 to 1/3; uniform has 1/32.
    share = float(top[0] / top[:32].sum())
    assert share > 0.08 if ids.startswith("zipf") else share < 0.06


@pytest.mark.parametrize("text", ["zipf", "zipf:", "zipf:x", "zipf:0", "zipf:-1", "zipf:nan", "normal", ""])
def test_unknown_distributions_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="zipf:A"):
        inputs.parse_ids(text)


def test_cold_cases_rotate_over_enough_sets() -> None:
    cold, warm = Case(), Case(cold=False)
    assert inputs.count_sets(warm, 5, 8, 8) == 4
    assert inputs.count_sets(cold, 5, 8, 1 << 40) == 24 * 5
    assert inputs.count_sets(cold, 5, 8, 1) == inputs.MAX_SETS
    assert inputs.count_sets(cold, 5, 1 << 30, 1) == 24


def test_differs_compares_bits_shapes_and_skips_what_is_not_given() -> None:
    tensor = torch.tensor([1.0, 2.0])
    assert inputs.differs([tensor, None], [tensor.clone(), tensor]) is None
    assert "1 of 2" in str(inputs.differs([tensor], [torch.tensor([1.0, 2.0000002])]))
    assert "shape" in str(inputs.differs([tensor], [tensor[:1]]))


def test_override_replaces_fields_and_drops_duplicates() -> None:
    cases = [Case(rows=10, batch=1), Case(rows=20, batch=1)]
    assert override(cases, batch=[7]) == [Case(rows=10, batch=7), Case(rows=20, batch=7)]
    assert override(cases, rows=[5]) == [Case(rows=5, batch=1)]
