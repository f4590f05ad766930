"""`recsparse bench scale`: builds, trains, prunes and regrows one huge table, and says what it took.

The table is packed from the first byte and the data are a generated stream, so nothing of size rows x dim, and nothing
of the size of the data set, ever exists.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

from recsparse import ops
from recsparse.arguments import count
from recsparse.budget import TablePlan, plan_sparse
from recsparse.cli import Parser
from recsparse.config import MAX_THREADS, PolicyConfig
from recsparse.data import Sampler, SyntheticStream
from recsparse.errors import InvariantError, UserError
from recsparse.models import MatrixFactorisation, Triples
from recsparse.optim import Adam
from recsparse.runs import peak_rss_bytes, version
from recsparse.table import DTYPES, PackedTable
from recsparse.train import device_facts

USER_SHARE = 10 / 11
BATCH = 2048
CHUNK_STEPS = 256
# Candidates for growth: at most this share of the kept weights, 12 bytes each.
CANDIDATE_SHARE = 0.02
GROW_TRIPLES = 300_000
FRESH_DRAWS = 1 << 62


def main(argv: list[str]) -> int:
    """The command; see the module's description.

    Raises:
        UserError: impossible sizes.
    """
    options = _options(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    plan = plan_sparse(
        PolicyConfig(kind=options.kind, density=options.density), options.rows, options.dim, options.dtype
    )
    result = measure(plan, samples=options.samples, batch=options.batch, seed=options.seed, device=options.device)
    for name, value in result.items():
        print(f"{name:<30}{value:,.3f}" if isinstance(value, float) else f"{name:<30}{value}")
    if options.json:
        try:
            Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {options.json}: {error.strerror or error}") from None
    return 0


def finish(device: str) -> None:
    """Waits for what has been started there, so that a clock tells its time."""
    if device != "cpu":
        torch.cuda.synchronize()


def measure(plan: TablePlan, *, samples: int, seed: int, batch: int = BATCH, device: str = "cpu") -> dict[str, Any]:
    """Builds the table, trains `samples` triples, updates the mask once, checks every invariant.

    Returns:
        Exact bytes, seconds of each part, samples a second, and the peak resident size of the process.
    """
    baseline = peak_rss_bytes()
    n_users = min(max(1, round(plan.rows * USER_SHARE)), plan.rows - 2)
    n_items = plan.rows - n_users
    start = time.perf_counter()
    table = PackedTable.init(
        plan.rows,
        plan.dim,
        kind=plan.kind,
        capacity=plan.capacity,
        start="prefix",
        seed=seed,
        std=0.01,
        dtype=DTYPES[plan.dtype],
        device=device,
    )
    optimizer = Adam(table, seed=seed)
    finish(device)
    build_seconds = time.perf_counter() - start

    longest = min(72, n_items - 1)
    sampler = Sampler(SyntheticStream(n_users, n_items, seed, min(5, longest), longest), seed=seed, device=device)
    model = MatrixFactorisation(n_users, n_items, l2=1e-3)
    sample_seconds = step_seconds = 0.0
    loss = math.nan
    chunk = CHUNK_STEPS * batch
    for done in range(0, samples, chunk):
        start = time.perf_counter()
        triples = Triples(*sampler.draw(done, min(chunk, samples - done)))
        finish(device)
        drawn = time.perf_counter()
        losses = model.train_(table, optimizer, triples, batch)
        loss = float(losses.mean())
        sample_seconds += drawn - start
        step_seconds += time.perf_counter() - drawn

    finish(device)
    start = time.perf_counter()
    limit = max(1, int(CANDIDATE_SHARE * table.nnz))
    keys, scores = model.grow_scores(table, Triples(*sampler.draw(FRESH_DRAWS, min(samples, GROW_TRIPLES))), limit)
    dropped, grown = ops.prune_regrow_(table, optimizer.weight_state, keys, scores, drop=limit, grow=limit)
    finish(device)
    update_seconds = time.perf_counter() - start
    training_peak = peak_rss_bytes()

    table.check_invariants()
    optimizer.check_invariants()
    if table.nnz > plan.capacity:
        raise InvariantError(f"{table.nnz} weights are kept, the budget holds {plan.capacity}")
    stored = table.nbytes()
    slots = plan.rows * plan.dim
    return {
        "rows": plan.rows,
        "dim": plan.dim,
        "kind": plan.kind,
        "dtype": plan.dtype,
        "nnz": table.nnz,
        "density": table.nnz / slots,
        "samples": samples,
        "build_seconds": build_seconds,
        "sample_seconds": sample_seconds,
        "step_seconds": step_seconds,
        "samples_per_second": samples / (sample_seconds + step_seconds),
        "last_loss": loss,
        "update_seconds": update_seconds,
        "dropped": dropped,
        "grown": grown,
        "table_bytes": stored["total"],
        "state_bytes": stored["total"] + optimizer.nbytes(),
        "state_bytes_per_slot": (stored["total"] + optimizer.nbytes()) / slots,
        "dense_adam_bytes": 16 * slots,
        "baseline_rss_bytes": baseline,
        "peak_rss_before_checks_bytes": training_peak,
        "peak_rss_bytes": peak_rss_bytes(),
        **device_facts(device),
        "threads": torch.get_num_threads(),
        "version": version(),
    }


def _options(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="recsparse bench scale",
        description="Build one huge packed table, train it, update its mask once, check every invariant; "
        "prints peak memory and speed.",
    )
    parser.add_argument("--rows", type=count, default=10**8, help="rows, users and items together (default: 1e8)")
    parser.add_argument("--dim", type=count, default=64, help="columns (default: 64)")
    parser.add_argument("--density", type=float, default=0.05, help="kept weights as a share of all (default: 0.05)")
    parser.add_argument("--samples", type=count, default=5 * 10**7, help="training triples (default: 5e7)")
    parser.add_argument("--kind", choices=["auto", "bits", "cols8"], default="auto", help="index kind (default: auto)")
    parser.add_argument(
        "--dtype", choices=list(DTYPES), default="float32", help="type of the weights (default: float32)"
    )
    parser.add_argument("--batch", type=count, default=BATCH, help=f"triples of a mini-batch (default: {BATCH})")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where all of it lives (default: cpu)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = all cores (default)")
    parser.add_argument("--json", metavar="FILE", help="also write the result as JSON")
    options = parser.parse_args(argv)
    if options.rows < 3:
        raise UserError(f"--rows is {options.rows}; it must be 3 or above")
    if not 1 <= options.dim <= 256:
        raise UserError(f"--dim is {options.dim}; it must be from 1 to 256")
    if not 0 < options.density <= 1:
        raise UserError(f"--density is {options.density}; it must be above 0, at most 1")
    if not 0 <= options.threads <= MAX_THREADS:
        raise UserError(f"--threads is {options.threads}; it must be from 0 to {MAX_THREADS}")
    if options.json and Path(options.json).is_dir():
        raise UserError(f"--json {options.json} is a folder; give a file")
    if options.json and not Path(options.json).resolve().parent.is_dir():
        raise UserError(f"--json {options.json}: its folder does not exist")
    return options
