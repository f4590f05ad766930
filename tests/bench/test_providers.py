"""Every provider of every op at tiny size: it runs, its answer is right, and wrong answers are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from recsparse.bench import registry
from recsparse.bench.registry import OP_NAMES, OURS, Provider, Traffic, Trial, get_op, provider, providers_of
from recsparse.bench.run import Options, run_case

OPTIONS = Options(threads=1, rounds=2, budget_s=0.05)
PAIRS = [(op, peer) for op in OP_NAMES for peer in providers_of(op)]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quiet(line: str) -> None:
    pass


@pytest.mark.parametrize(("op", "peer"), PAIRS, ids=[f"{op}-{peer.name}" for op, peer in PAIRS])
def test_provider_is_right_and_gets_a_time(op: str, peer: Provider) -> None:
    reason = peer.available()
    if reason is not None:
        pytest.skip(reason)
    rows = [run_case(get_op(op), case, [peer], OPTIONS, quiet)[0] for case in get_op(op).cases(quick=True)]
    done = [row for row in rows if not row["note"].startswith("skipped")]
    assert done
    for row in done:
        assert row["correct"] is True, row["note"]
        assert row["calls"] >= 3
        assert 0 < row["p20_us"] <= row["p50_us"] <= row["p80_us"]
        assert row["units_per_s"] > 0
        assert row["held_bytes"] > 0


@pytest.mark.parametrize("op", OP_NAMES)
def test_providers_of_one_case_do_not_disturb_each_other(op: str) -> None:
    rows = run_case(get_op(op), get_op(op).cases(quick=True)[0], providers_of(op), OPTIONS, quiet)
    assert [row["note"] for row in rows if row["correct"] is False] == []


@pytest.mark.parametrize("kind", ["bits", "cols8", "prefix", "full"])
@pytest.mark.parametrize("op", ["lookup", "rows_step", "bpr_step", "adam", "pack", "unpack"])
def test_ours_in_every_index_kind(op: str, kind: str) -> None:
    case = replace(get_op(op).cases(quick=True)[0], kind=kind, density=1.0 if kind == "full" else 0.2)
    (row,) = run_case(get_op(op), case, providers_of(op, [OURS]), OPTIONS, quiet)
    assert row["correct"] is True, row["note"]


def test_every_op_has_ours_and_peers() -> None:
    for op in OP_NAMES:
        names = [peer.name for peer in providers_of(op)]
        assert names[0] == OURS
        assert any(not registry.is_ours(name) for name in names)


def test_a_provider_says_which_cases_it_cannot_do() -> None:
    op = get_op("rows_step")
    (case,) = [case for case in op.cases(quick=True) if case.optimizer == "rowwise_adagrad"]
    lines: list[str] = []
    (row,) = run_case(op, case, providers_of("rows_step", ["torch.SparseAdam"]), OPTIONS, lines.append)
    assert row["correct"] is None
    assert row["p50_us"] is None
    assert row["note"] == "skipped: SparseAdam is no rowwise_adagrad"
    assert lines == ["  skipped torch.SparseAdam: SparseAdam is no rowwise_adagrad"]


def flip(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone().view(-1)
    changed[0] = ~changed[0] if changed.dtype == torch.bool else changed[0] + 0.01
    return changed.view(tensor.shape)


DAMAGE: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("lookup", "torch.index_select", flip),
    ("bpr_step", "torch.SparseAdam", lambda answer: (flip(answer[0]), *answer[1:])),
    ("bpr_step", "torch.SparseAdam", lambda answer: (answer[0], flip(answer[1]), *answer[2:])),
    ("bpr_step", "torch.SparseAdam", lambda answer: (*answer[:3], False)),
    ("bpr_step", "torch.SparseAdam", lambda answer: (*answer[:2], True, True)),
    ("bpr_step", "implicit.bpr", lambda answer: replace(answer, after=answer.before)),
    ("adam", "torch.Adam(fused)", lambda answer: (flip(answer[0]), answer[1])),
    ("adam", "torch.Adam(fused)", lambda answer: (answer[0], True)),
    ("adam", "weight x mask Adam(fused)", lambda answer: (answer[0], False)),
    ("rows_step", "torch.SparseAdam", lambda answer: (flip(answer[0]), answer[1])),
    ("rows_step", "torch.SparseAdam", lambda answer: (answer[0], True)),
    ("rank", "torch.mm+topk", lambda answer: answer.flip(1)),
    ("rank", "torch.mm+topk", lambda answer: answer[:, :1].expand(-1, answer.shape[1])),
    ("rank", "torch.mm+topk", lambda answer: answer + 1),
    ("select", "torch.topk", lambda answer: (answer[0] * (1 + 1e-6), None)),
    ("select", "torch.topk", lambda answer: (answer[0], 2)),
    ("prune_regrow", "torch.topk", lambda answer: replace(answer, w=flip(answer.w))),
    ("prune_regrow", "torch.topk", lambda answer: replace(answer, mask=flip(answer.mask))),
    ("prune_regrow", "torch.topk", lambda answer: replace(answer, v=flip(answer.v))),
    ("sample", "numpy[search]", lambda answer: (answer[0], answer[1], answer[1])),
    ("sample", "numpy[search]", lambda answer: (answer[0], answer[2], answer[2])),
    ("sample", "numpy[search]", lambda answer: tuple(part[:1].repeat(len(part)) for part in answer)),
    ("pack", "torch.masked_select", lambda answer: (flip(answer[0]), None)),
    ("unpack", "torch.csr.to_dense", lambda answer: (flip(answer[0]), None)),
]


@pytest.mark.parametrize(("op", "name", "damage"), DAMAGE, ids=[f"{op}-{n}" for n, (op, _, _) in enumerate(DAMAGE)])
def test_wrong_answers_are_refused(op: str, name: str, damage: Callable[[Any], Any]) -> None:
    bench = get_op(op)
    problem = bench.problem(bench.cases(quick=True)[0], 1)
    (peer,) = providers_of(op, [name])
    if peer.available() is not None:
        pytest.skip(str(peer.available()))
    trial = peer.prepare(problem)
    assert bench.check(problem, trial) is None
    right = trial.answer
    trial.answer = lambda number: damage(right(number))
    assert bench.check(problem, trial) is not None


def test_a_wrong_a_broken_and_an_absent_provider_get_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._providers, "lookup", {})

    @provider("lookup", "zeros")
    def zeros(problem: Any) -> Trial:
        return Trial(lambda number: None, lambda number: torch.zeros_like(problem.out), Traffic(), 1, 1)

    @provider("lookup", "broken")
    def broken(problem: Any) -> Trial:
        raise RuntimeError("no such kernel")

    @provider("lookup", "absent", registry.needs("a_package_that_does_not_exist"))
    def absent(problem: Any) -> Trial:
        raise AssertionError("must not be prepared")

    op, lines = get_op("lookup"), []
    rows = run_case(op, op.cases(quick=True)[0], providers_of("lookup"), OPTIONS, lines.append)
    assert [row["provider"] for row in rows] == ["zeros", "broken", "absent"]
    assert [row["correct"] for row in rows] == [False, False, None]
    assert all(row[name] is None for row in rows for name in ("p20_us", "p50_us", "p80_us", "units_per_s", "gbps"))
    assert "no such kernel" in rows[1]["note"]
    assert "a_package_that_does_not_exist" in rows[2]["note"]
    assert len(lines) == 3


def test_a_provider_that_changes_the_number_of_threads_does_not_change_it_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry._providers, "lookup", {})
    seen = set()

    @provider("lookup", "rude")
    def rude(problem: Any) -> Trial:
        torch.set_num_threads(3)
        return Trial(lambda number: None, lambda number: torch.zeros_like(problem.out), Traffic(), 1, 1)

    @provider("lookup", "polite")
    def polite(problem: Any) -> Trial:
        def run(number: int) -> torch.Tensor:
            seen.add(torch.get_num_threads())
            return problem.dense.index_select(0, problem.ids[number])

        return Trial(run, run, Traffic(), 1, 1)

    op = get_op("lookup")
    run_case(op, op.cases(quick=True)[0], providers_of("lookup"), OPTIONS, quiet)
    assert seen == {OPTIONS.threads}
