"""Run cases: prepare the providers, refuse wrong answers, measure memory, time them interleaved, make result rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from . import machine, memory
from .ceilings import Ceilings
from .registry import Case, Op, Problem, Provider, Trial, Unsuited, is_ours
from .rows import Row, result_row
from .timing import WATCHES, interleave, percentiles


@dataclass(frozen=True)
class Options:
    threads: int
    rounds: int = 120
    budget_s: float = 40.0
    """Seconds of timing for a case, shared by its providers; set-up and checks come on top."""


@dataclass
class _Entry:
    provider: Provider
    row: Row
    trial: Trial | None = None


def run_op(
    op: Op,
    cases: Sequence[Case],
    providers: Sequence[Provider],
    options: Options,
    say: Callable[[str], None],
    ceilings: Ceilings | None = None,
) -> list[Row]:
    """Result rows of all cases of one op; ``say`` gets one line of progress at a time."""
    torch.set_num_threads(options.threads)
    memory.keep_freed_memory()
    rows: list[Row] = []
    for number, case in enumerate(cases, start=1):
        say(f"{op.name}: case {number} of {len(cases)}: {describe(op, case)}")
        rows += run_case(op, case, providers, options, say, ceilings)
        memory.release()
    return rows


def describe(op: Op, case: Case) -> str:
    """The fields of a case that matter to the op, in words."""
    fields = case.asdict() | {"cold": "cold" if case.cold else "warm"}
    return " ".join(str(fields[name]) if name == "cold" else f"{name}={fields[name]}" for name in op.shown)


def resident(case: Case, n_sets: int, trial: Trial) -> str:
    """Where a provider finds its data: in ``memory``; in the last-level ``cache``, if all that the input sets touch
    fits in it, and then no roof of memory applies; or ``mixed``, if skewed ids find the popular rows in the cache."""
    touched = min(trial.held_bytes, n_sets * trial.traffic.total // trial.steps)
    if touched <= machine.last_level_cache(case.device):
        return "cache"
    return "memory" if case.ids == "uniform" else "mixed"


def run_case(
    op: Op,
    case: Case,
    providers: Sequence[Provider],
    options: Options,
    say: Callable[[str], None],
    ceilings: Ceilings | None = None,
) -> list[Row]:
    with torch.device(case.device):
        problem = op.problem(case, len(providers))
        entries = []
        for provider in providers:
            # Setting up numba, for one, sets the threads of torch's OpenMP runtime too.
            torch.set_num_threads(options.threads)
            entries.append(_prepare(op, problem, provider, options, say))
    torch.set_num_threads(options.threads)
    timed = [entry for entry in entries if entry.trial is not None]
    trials = [entry.trial for entry in timed if entry.trial is not None]
    ceilings = ceilings or Ceilings(case.device)
    roofs = [ceilings.microseconds(trial.traffic) for trial in trials]
    watch = WATCHES[case.device]
    samples = interleave(trials, n_sets=problem.n_sets, rounds=options.rounds, budget_s=options.budget_s, watch=watch)
    for entry, trial, roof_us, sample in zip(timed, trials, roofs, samples, strict=True):
        low, middle, high = (value / trial.steps for value in percentiles(sample.times))
        entry.row |= {
            "p20_us": low,
            "p50_us": middle,
            "p80_us": high,
            "first_us": percentiles(sample.first)[1] / trial.steps if sample.first else None,
            "calls": len(sample.times),
            "units_per_s": trial.units / trial.steps / middle * 1e6,
        }
        if trial.traffic.total:
            moved = trial.traffic.total / trial.steps
            entry.row |= {
                "bytes_model": round(moved),
                "gbps": moved / middle / 1e3,
                "ceiling_gbps": trial.traffic.total / roof_us / 1e3,
                "pct_ceiling": 100 * roof_us / trial.steps / middle,
                "resident": resident(case, problem.n_sets, trial),
            }
    return [entry.row for entry in entries]


def _prepare(op: Op, problem: Problem, provider: Provider, options: Options, say: Callable[[str], None]) -> _Entry:
    case = problem.case
    row = result_row(op.name, case.asdict(), describe(op, case), op.unit, provider.name, options.threads)
    entry = _Entry(provider, row)
    reason = provider.available()
    if reason is not None:
        say(f"  skipped {provider.name}: {reason}")
        entry.row["note"] = f"skipped: {reason}"
        return entry
    try:
        trial = provider.prepare(problem)
        wrong = op.check(problem, trial)
    except Unsuited as lack:
        say(f"  skipped {provider.name}: {lack}")
        entry.row["note"] = f"skipped: {lack}"
        return entry
    except Exception as error:
        if is_ours(provider.name):
            raise
        # A peer that breaks on this machine must not hide the others.
        wrong = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        say(f"  {provider.name} failed: {wrong}")
        entry.row |= {"correct": False, "note": f"failed: {wrong}"}
        return entry
    note = trial.note
    if trial.dtype != problem.case.dtype:
        note = f"{note}; {trial.dtype}" if note else trial.dtype
    entry.row |= {"backend": trial.backend, "note": note, "correct": wrong is None}
    if wrong is not None:
        say(f"  {provider.name} is wrong, not timed: {wrong}")
        entry.row["note"] = f"wrong: {wrong}"
        return entry
    if trial.before is not None:
        trial.before(0)
    growth = memory.peak_growth(lambda: trial.run(0))
    entry.row["peak_bytes"] = None if growth is None else trial.held_bytes + growth
    entry.row["held_bytes"] = trial.held_bytes
    entry.trial = trial
    return entry
