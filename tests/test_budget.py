from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsparse import budget, layout
from recsparse.config import PolicyConfig
from recsparse.errors import UserError

ROWS, DIM = 1000, 64
DENSE = ROWS * DIM * 4


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("100%", DENSE),
        ("20%", DENSE // 5),
        ("12.5 %", DENSE // 8),
        ("0.0001%", 0),
        ("4096B", 4096),
        ("51.2KB", 51_200),
        ("50kib", 51_200),
        (".1MiB", 104_857),
        ("0.2MB", 200_000),
    ],
)
def test_budgets_are_exact(text: str, nbytes: int) -> None:
    assert budget.parse_budget(text, ROWS, DIM) == nbytes


def test_a_share_of_a_huge_table_is_exact() -> None:
    assert budget.parse_budget("33.3%", 10**12 + 7, 64) == (10**12 + 7) * 64 * 4 * 333 // 1000


@pytest.mark.parametrize(
    "text", ["", "much", "20", "-5%", "20%%", "1e3B", "5 bytes", "nan%", "3XB", "1,5MB", "iB", "5ib"]
)
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"policy\.budget is .*expected a share of dense fp32 as 20%"):
        budget.parse_budget(text, ROWS, DIM)


@pytest.mark.parametrize("text", ["100.001%", f"{DENSE + 1}B", "1TB"])
def test_above_dense_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="above the dense table"):
        budget.parse_budget(text, ROWS, DIM)


@given(
    st.integers(1, 5000),
    st.integers(1, 256),
    st.sampled_from(["auto", "bits", "cols8"]),
    st.fractions(0, 100).map(lambda share: f"{float(share):.6f}%"),
    st.sampled_from(list(layout.VALUE_BYTES)),
)
def test_a_planned_table_fits_and_has_no_room_for_one_more(
    rows: int, dim: int, kind: str, text: str, dtype: str
) -> None:
    size = layout.VALUE_BYTES[dtype]
    policy = PolicyConfig(kind=kind, budget=text)  # type: ignore[arg-type]
    granted = budget.parse_budget(text, rows, dim)
    kinds = budget.SPARSE_KINDS if kind == "auto" else (kind,)
    if all(layout.stored_nbytes(each, rows, dim, rows, size) > granted for each in kinds):
        with pytest.raises(UserError, match="less than one weight a row"):
            budget.plan_sparse(policy, rows, dim, dtype)
        return
    plan = budget.plan_sparse(policy, rows, dim, dtype)
    assert plan.dtype == dtype
    assert rows <= plan.capacity <= rows * dim
    assert plan.nbytes <= granted
    full = plan.capacity == rows * dim
    assert full or layout.stored_nbytes(plan.kind, rows, dim, plan.capacity + 1, size) > granted


def test_auto_takes_the_kind_that_affords_the_most() -> None:
    def planned(text: str) -> str:
        return budget.plan_sparse(PolicyConfig(budget=text), 100_000, 64).kind

    assert planned("5%") == "cols8"
    assert planned("40%") == "bits"
    for text in ("5%", "10%", "16%", "17%", "20%", "60%"):
        granted = budget.parse_budget(text, 100_000, 64)
        room = {kind: layout.capacity_for_nbytes(kind, 100_000, 64, granted, 4) for kind in budget.SPARSE_KINDS}
        assert room[planned(text)] == max(room.values())


def test_the_least_budget_named_in_the_error_works() -> None:
    with pytest.raises(UserError, match="less than one weight a row") as error:
        budget.plan_sparse(PolicyConfig(budget="1%"), ROWS, DIM)
    least = str(error.value).rsplit(" ", 1)[-1]
    assert budget.plan_sparse(PolicyConfig(budget=least), ROWS, DIM).capacity >= ROWS


def test_density_counts_weights() -> None:
    assert budget.plan_sparse(PolicyConfig(density=0.2), ROWS, DIM).capacity == 12_800
    assert budget.plan_sparse(PolicyConfig(density=1 / DIM), ROWS, DIM).capacity == ROWS
    with pytest.raises(UserError, match="less than one weight a row"):
        budget.plan_sparse(PolicyConfig(density=0.9 / DIM), ROWS, DIM)


def test_small_dense_has_equal_bytes_or_equal_parameters() -> None:
    by_bytes = budget.plan_small_dense(PolicyConfig(name="small_dense", budget="20%"), ROWS, DIM)
    assert (by_bytes.kind, by_bytes.dim, by_bytes.nbytes) == ("full", 12, ROWS * 12 * 4)
    assert budget.plan_small_dense(PolicyConfig(name="small_dense", density=0.2), ROWS, DIM).dim == 13
    assert budget.plan_small_dense(PolicyConfig(name="small_dense", budget="100%"), ROWS, DIM).dim == DIM
    with pytest.raises(UserError, match=r"less than one column.*the least is 1\.57%"):
        budget.plan_small_dense(PolicyConfig(name="small_dense", budget="1.56%"), ROWS, DIM)


def test_halves_buy_twice_the_columns_but_never_more_than_the_full_table() -> None:
    halves = budget.plan_small_dense(PolicyConfig(name="small_dense", budget="20%"), ROWS, DIM, "float16")
    assert (halves.dim, halves.nbytes) == (25, ROWS * 25 * 2)
    assert budget.plan_small_dense(PolicyConfig(name="small_dense", budget="60%"), ROWS, DIM, "bfloat16").dim == DIM
    assert budget.plan_small_dense(PolicyConfig(name="small_dense", density=0.2), ROWS, DIM, "float16").dim == 13
    with pytest.raises(UserError, match=r"less than one column.*the least is 0\.79%"):
        budget.plan_small_dense(PolicyConfig(name="small_dense", budget="0.7%"), ROWS, DIM, "float16")
    assert budget.plan_dense(ROWS, DIM, "float16").nbytes == DENSE // 2


def test_a_policy_that_needs_a_size_says_how_to_give_one() -> None:
    with pytest.raises(UserError, match=r"give policy\.budget .* or policy\.density"):
        budget.plan_sparse(PolicyConfig(name="dsl"), ROWS, DIM)


@pytest.mark.parametrize("text", ["5%", "20%", "99.9%", "100%"])
def test_a_policy_may_have_kinds_of_its_own(text: str) -> None:
    plan = budget.plan_sparse(PolicyConfig(budget=text), 100_000, 64, kinds=("prefix",))
    granted = budget.parse_budget(text, 100_000, 64)
    assert plan.kind == "prefix"
    assert granted - 4 < plan.nbytes <= granted  # not a weight less than it pays for
