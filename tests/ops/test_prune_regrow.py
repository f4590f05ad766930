"""prune_regrow_ against the dense rule, bit for bit: index, columns, values, moments, and zeros behind them."""

from __future__ import annotations

from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from strategies import DTYPES, same_bits

from recsparse import layout
from recsparse.ops import prune_regrow_
from recsparse.reference.prune_regrow import prune_regrow_dense
from recsparse.table import PackedTable

DIMS = [1, 7, 16, 31, 32, 33, 64, 100, 128, 160, 255, 256]
KINDS = ["bits", "cols8"]
CANARY = 32


def moment_places(mask):
    """Where the first and second moments of the kept weights lie, int64 [nnz] each."""
    first = 2 * torch.arange(int(mask.sum()))
    return first, first + 1


def make_problem(
    rows,
    dim,
    kind,
    *,
    density=0.3,
    candidates=0.3,
    slack=0,
    levels=0,
    seed=0,
    with_moments=True,
    skew=False,
    dtype=torch.float32,
):
    """A table between canaries, its dense form, and candidates with scores. `levels` > 0 makes ties."""
    source = torch.Generator().manual_seed(seed)
    threshold = torch.full((rows, 1), density)
    if skew:  # empty rows, full rows and everything between, unevenly over the table
        threshold = torch.linspace(-0.2, 1.2, rows)[:, None] ** 3
    mask = torch.rand(rows, dim, generator=source) < threshold
    dense = torch.randn(rows, dim, generator=source)
    if levels:
        dense = (dense * levels).round() / levels
    dense = (dense * mask).to(dtype)
    free = (~mask).view(-1).nonzero()[:, 0]
    chosen = torch.rand(len(free), generator=source) < candidates
    keys = free[chosen]
    scores = torch.randn(len(keys), generator=source)
    if levels:
        scores = (scores * levels).round() / levels
    nnz = int(mask.sum())
    capacity = nnz + slack
    # The capacity is not known to the kernel but through the tensors: whatever it writes outside shows.
    values_buffer = torch.full((capacity + 2 * CANARY,), float("nan"), dtype=dtype)
    moments_buffer = torch.full((2 * capacity + 2 * CANARY,), float("nan"))
    cols_buffer = torch.full((capacity + 2 * CANARY,), 0xA5, dtype=torch.uint8)
    index, cols, values = torch.ops.recsparse.pack(dense, mask, layout.kind_code(kind), capacity)
    index_buffer = torch.full((len(index) + 16,), -1)
    index_buffer[8:-8] = index
    values_buffer[CANARY:-CANARY] = values
    if kind == "cols8":
        cols_buffer[CANARY:-CANARY] = cols
        cols = cols_buffer[CANARY:-CANARY]
    moments = moments_buffer[CANARY:-CANARY]
    m, v = torch.randn(rows, dim, generator=source), torch.rand(rows, dim, generator=source)
    first, second = moment_places(mask)
    moments.fill_(7.0)  # stale data behind the moments must not survive
    moments[first], moments[second] = m[mask], v[mask]
    table = PackedTable(rows, dim, kind, index_buffer[8:-8], cols, values_buffer[CANARY:-CANARY])
    return SimpleNamespace(
        table=table,
        moments=moments if with_moments else None,
        keys=keys,
        scores=scores,
        dense=dense,
        mask=mask,
        m=m,
        v=v,
        nnz=nnz,
        buffers=(index_buffer, values_buffer, moments_buffer, cols_buffer),
    )


def assert_canaries(problem):
    index, values, moments, cols = problem.buffers
    assert bool((index[:8] == -1).all() and (index[-8:] == -1).all())
    for buffer in (values, moments):
        assert bool(buffer[:CANARY].isnan().all() and buffer[-CANARY:].isnan().all())
    assert bool((cols[:CANARY] == 0xA5).all() and (cols[-CANARY:] == 0xA5).all())


def run_and_check(problem, drop, grow):
    table = problem.table
    new_mask, dropped, grown = prune_regrow_dense(problem.dense, problem.mask, problem.keys, problem.scores, drop, grow)
    nnz = problem.nnz - dropped + grown
    assert prune_regrow_(table, problem.moments, problem.keys, problem.scores, drop=drop, grow=grow) == (dropped, grown)
    assert_canaries(problem)
    table.check_invariants()
    assert table.nnz == nnz == int(new_mask.sum())
    assert torch.equal(table.mask(), new_mask)
    stays = problem.mask & new_mask
    expected = torch.where(stays, problem.dense, 0.0)
    assert same_bits(table.to_dense(), expected)
    assert not bool(table.values[nnz:].any())
    index, cols, values = torch.ops.recsparse.pack(expected, new_mask, *table.layout[:1], table.capacity)
    assert torch.equal(table.index, index)
    assert torch.equal(table.cols, cols)
    assert torch.equal(table.values, values)
    if problem.moments is not None:
        moments = torch.zeros(2 * table.capacity)
        first, second = moment_places(new_mask)
        moments[first] = torch.where(stays, problem.m, 0.0)[new_mask]
        moments[second] = torch.where(stays, problem.v, 0.0)[new_mask]
        assert torch.equal(problem.moments, moments)
    return dropped, grown


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_dense_rule(kind, dim, dtype, threads):
    for rows in (1, 7, 56, 57, 250):
        problem = make_problem(rows, dim, kind, levels=4, seed=rows, slack=5, dtype=dtype)
        some = problem.nnz // 3
        run_and_check(problem, some, min(some + 5, len(problem.keys)))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80)
@given(data=st.data())
def test_any_shape(kind, data):
    draw = data.draw
    problem = make_problem(
        draw(st.integers(1, 130)),
        draw(st.sampled_from(DIMS)),
        kind,
        density=draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])),
        candidates=draw(st.sampled_from([0.0, 0.1, 1.0])),
        slack=draw(st.sampled_from([0, 1, 40])),
        levels=draw(st.sampled_from([0, 1, 3])),
        seed=draw(st.integers(0, 1000)),
        with_moments=draw(st.booleans()),
        skew=draw(st.booleans()),
        dtype=draw(st.sampled_from(DTYPES)),
    )
    drop = draw(st.integers(0, problem.nnz))
    # grown - dropped = grow - drop unless dropped is clamped at 0, when grown = all candidates.
    room = problem.table.capacity - problem.nnz
    grow = draw(st.integers(0, min(drop + room, len(problem.keys) + 10)))
    run_and_check(problem, drop, grow)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [16, 64, 100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_slabs_that_move_both_ways(kind, dim, dtype, threads):
    # Small weights in the first and last parts, candidates in the middle: starts move left, then right, by many slabs.
    rows = 120_000 // dim * 16
    problem = make_problem(rows, dim, kind, density=0.2, candidates=0.1, levels=50, skew=True, dtype=dtype)
    far = (torch.arange(rows) - rows / 2).abs()[:, None] / rows
    problem.dense *= 1.5 - far * 2
    problem.table.values[: problem.nnz] = problem.dense[problem.mask]
    problem.scores -= 4 * ((problem.keys // dim) / rows - 0.4).abs()
    dropped, grown = run_and_check(problem, problem.nnz // 3, min(problem.nnz // 3, len(problem.keys)))
    assert dropped > 0
    assert grown > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_values_move_across_the_whole_table(kind, reverse, threads):
    # All weights lie in one half, all candidates in the other: the survivors shift by nearly the whole array.
    rows, dim = 40_000, 16
    problem = make_problem(rows, dim, kind, density=0.5, candidates=0.0, slack=200_000)
    half = torch.arange(rows)[:, None] * dim < rows * dim // 2
    mask = problem.mask & (half if reverse else ~half)
    dense = problem.dense * mask
    index, cols, values = torch.ops.recsparse.pack(dense, mask, *problem.table.layout[:1], problem.table.capacity)
    for old, new in zip(
        (problem.table.index, problem.table.cols, problem.table.values), (index, cols, values), strict=True
    ):
        old.copy_(new)
    problem.dense, problem.mask, problem.nnz = dense, mask, int(mask.sum())
    first, second = moment_places(mask)
    problem.moments[first], problem.moments[second] = problem.m[mask], problem.v[mask]
    problem.keys = (~mask & (~half if reverse else half)).view(-1).nonzero()[:, 0][::2].contiguous()
    problem.scores = torch.rand(len(problem.keys))
    run_and_check(problem, problem.nnz // 4, 150_000)


@pytest.mark.parametrize("kind", KINDS)
def test_ties_keep_the_lower_position_and_grow_the_lower_key(kind, threads):
    rows, dim = 9_000, 64
    problem = make_problem(rows, dim, kind, density=0.3, candidates=0.2)
    problem.table.values[: problem.nnz] = 0.5
    problem.dense = problem.mask * 0.5
    problem.scores = torch.zeros(len(problem.keys))
    problem.scores[::2] = -0.0  # equal to +0
    drop = problem.nnz // 3
    kept = problem.mask.view(-1).nonzero()[:, 0]
    run_and_check(problem, drop, drop // 2)
    expected = torch.cat([kept[: problem.nnz - drop], problem.keys[: drop // 2]]).sort().values
    assert torch.equal(problem.table.mask().view(-1).nonzero()[:, 0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_special_cases(kind):
    empty = torch.empty(0, dtype=torch.int64), torch.empty(0)
    problem = make_problem(60, 33, kind)
    problem.keys, problem.scores = empty
    assert run_and_check(problem, problem.nnz // 2, 0) == (problem.nnz // 2, 0)  # plain pruning
    problem = make_problem(60, 33, kind)
    assert run_and_check(problem, problem.nnz, 0) == (problem.nnz, 0)  # drop all
    problem = make_problem(60, 33, kind)
    assert run_and_check(problem, 0, 0) == (0, 0)
    problem = make_problem(60, 33, kind, slack=2000)
    assert run_and_check(problem, 0, len(problem.keys)) == (0, len(problem.keys))  # grow only
    problem = make_problem(60, 33, kind)
    few = len(problem.keys)
    problem.table.values[3] = problem.dense[problem.mask.nonzero()[3].unbind()] = float("inf")
    result = prune_regrow_(problem.table, None, problem.keys, problem.scores, drop=few + 1, grow=few + 1)
    assert result == (few, few)  # fewer candidates than asked for
    problem = make_problem(60, 33, kind, slack=2000)
    few = len(problem.keys)
    assert run_and_check(problem, 3, few + 10) == (0, few)


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_for_any_threads_and_as_the_reference(kind):
    results = []
    before = torch.get_num_threads()
    for threads, backend in ((1, "cpu"), (2, "cpu"), (2, "cpu"), (3, "cpu"), (1, "reference")):
        torch.set_num_threads(threads)
        problem = make_problem(300, 64, kind, levels=9, slack=3)
        problem.table.backend = backend
        prune_regrow_(problem.table, problem.moments, problem.keys, problem.scores, drop=900, grow=902)
        results.append([problem.table.index, problem.table.cols, problem.table.values, problem.moments])
    torch.set_num_threads(before)
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert torch.equal(one, other)


def bad_key(position, value):
    def change(problem):
        problem.keys[position] = value

    return change


def nan_score(problem):
    problem.scores[4] = float("nan")


def nan_weight(problem):
    problem.table.values[[5, 6]] = float("nan")


BAD = {
    "unsorted": (bad_key(7, 0), {}, r"keys\[7\] = 0 follows \d+, expected ascending keys without duplicates"),
    "out of range": (bad_key(-1, 100 * 33), {}, r"= 3300, expected 0 <= key < 3300"),
    "negative": (bad_key(0, -1), {}, r"keys\[0\] = -1, expected 0 <= key < 3300"),
    "NaN score": (nan_score, {}, r"scores\[4\] is nan, expected finite scores"),
    "NaN weight": (nan_weight, {}, "2 kept weights are NaN, the first at position 5"),
    "too many dropped": (None, {"drop": 10**6}, r"drop = 1000000, expected 0 <= drop <= \d+"),
    "negative drop": (None, {"drop": -1}, "drop = -1, expected 0 <= drop"),
    "negative grow": (None, {"grow": -1}, "grow = -1, expected grow >= 0"),
    "no room": (None, {"drop": 10, "grow": 11}, r"\d+ weights would be kept, but capacity is \d+"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BAD)
def test_bad_input_changes_nothing(kind, name, threads):
    change, arguments, message = BAD[name]
    problem = make_problem(100, 33, kind)
    if change:
        change(problem)
    state = [problem.table.index, problem.table.cols, problem.table.values, problem.moments]
    before = [tensor.clone() for tensor in state]
    with pytest.raises(ValueError, match="^prune_regrow_: .*" + message) as caught:
        prune_regrow_(
            problem.table, problem.moments, problem.keys, problem.scores, **{"drop": 10, "grow": 10, **arguments}
        )
    assert "\n" not in str(caught.value)
    for tensor, saved in zip(state, before, strict=True):
        assert torch.equal(tensor.view(torch.uint8), saved.view(torch.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_kept_and_repeated_keys_are_refused(kind):
    problem = make_problem(100, 33, kind)
    kept = int(problem.mask.view(-1).nonzero()[50, 0])
    problem.keys = torch.cat([problem.keys, torch.tensor([kept])]).sort().values
    problem.scores = torch.zeros(len(problem.keys))
    with pytest.raises(ValueError, match=rf"= {kept} is a kept weight"):
        prune_regrow_(problem.table, None, problem.keys, problem.scores, drop=10, grow=10)
    problem = make_problem(100, 33, kind)
    problem.keys[9] = problem.keys[8]
    with pytest.raises(ValueError, match=r"keys\[9\] = \d+ follows \d+, expected ascending keys"):
        prune_regrow_(problem.table, None, problem.keys, problem.scores, drop=10, grow=10)


def test_wrong_tensors_and_kinds():
    problem = make_problem(20, 33, "bits")
    table, keys, scores = problem.table, problem.keys, problem.scores
    for arguments, error, message in (
        ((table, None, keys.int(), scores), TypeError, "keys has dtype Int, expected Long"),
        ((table, None, keys, scores.double()), TypeError, "scores has dtype Double, expected Float"),
        ((table, None, keys, scores[1:]), ValueError, "scores has .* entries, expected .* as keys"),
        ((table, problem.moments[1:], keys, scores), ValueError, "state has .* entries, expected capacity"),
        ((table, None, keys[:, None], scores), ValueError, "keys has shape .*, expected one dimension"),
    ):
        with pytest.raises(error, match=message):
            prune_regrow_(*arguments, drop=1, grow=1)
    for kind in ("full", "prefix"):
        full = PackedTable.from_dense(torch.ones(4, 8), kind=kind)
        with pytest.raises(ValueError, match=r"expected 2 \(bits\) or 3 \(cols8\)"):
            prune_regrow_(full, None, keys[:0], scores[:0], drop=1, grow=0)


def test_a_graph_over_the_old_weights_is_refused():
    problem = make_problem(20, 33, "bits")
    values = problem.table.values.requires_grad_()
    loss = (values * values).sum()
    prune_regrow_(problem.table, None, problem.keys, problem.scores, drop=3, grow=3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(kind, dtype):
    problem = make_problem(20, 33, kind, dtype=dtype)
    table = problem.table
    arguments = (table.index, table.cols, table.values, problem.moments, problem.keys, problem.scores)
    arguments = tuple(tensor.clone() for tensor in arguments)  # opcheck wants no views of one buffer
    torch.library.opcheck(torch.ops.recsparse.prune_regrow_.default, (*arguments, *table.layout, 5, 5))
