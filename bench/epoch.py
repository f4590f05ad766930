"""A whole epoch and a whole evaluation of LightGCN on a folder of real data, against the code that people use.

Ours runs as `recsparse train` runs it, sampling included. A peer whose epoch takes minutes is timed on some
mini-batches; its row says so. All start from the same table, and the metrics that LightGCN-PyTorch's own test finds for
it have to be ours. (What the mini-batches compute is checked by `bench run --op lightgcn_step`.)
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsparse import arguments
from recsparse.cli import Parser
from recsparse.data import Dataset, Sampler, load_folder
from recsparse.errors import UserError
from recsparse.evaluate import evaluate
from recsparse.graph import Graph
from recsparse.metrics import Metrics
from recsparse.models import LightGCN, Triples
from recsparse.optim import Adam
from recsparse.table import PackedTable
from recsparse.train import CHUNK_STEPS

from . import machine, report
from .ops.lightgcn_step import LAYERS, LR
from .registry import OURS, Case
from .rows import Row, result_row, write

DIM, BATCH, L2, STD = 64, 2048, 1e-4, 0.1
CLOSE = 2e-3
"""Relative difference of metrics that equal lists may show: LightGCN-PyTorch ranks sigmoids in float32, which tie."""


@dataclass(frozen=True)
class Setting:
    dataset: Dataset
    graph: Graph
    folder: Path
    batches: int
    threads: int
    case: Case

    @property
    def weights(self) -> torch.Tensor:
        """float32 [nodes, DIM]: what every provider starts from."""
        return PackedTable.init(
            self.graph.nodes, DIM, kind="full", capacity=self.graph.nodes * DIM, start="full", std=STD
        ).to_dense()


@dataclass(frozen=True)
class Measured:
    epoch_s: float
    evaluation_s: float | None
    metrics: Metrics | None
    note: str


def main(argv: list[str]) -> int:
    """The command; see the module's description. 1 if an answer was wrong."""
    parser = Parser(prog="recsparse bench epoch", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with train.txt and test.txt")
    parser.add_argument(
        "--lightgcn-pytorch", type=Path, metavar="CHECKOUT", help="a checkout of gusye1234/LightGCN-PyTorch to run"
    )
    parser.add_argument("--batches", type=arguments.count, default=30, help="mini-batches of a slow peer (default: 30)")
    parser.add_argument("--threads", type=arguments.count, default=machine.cpus(), help="of all (default: all CPUs)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")
    options = parser.parse_args(argv)
    checkout = options.lightgcn_pytorch
    if checkout is not None and not (checkout / "code" / "Procedure.py").is_file():
        raise UserError(
            f"--lightgcn-pytorch {checkout}: no checkout of LightGCN-PyTorch (code/Procedure.py is missing)"
        )
    torch.set_num_threads(options.threads)
    dataset = load_folder(options.folder, protocol="paper")
    graph = Graph.from_interactions(dataset.train, dataset.n_items)
    case = Case(rows=graph.nodes, dim=DIM, batch=BATCH, kind="full", graph=str(options.folder))
    setting = Setting(dataset, graph, options.folder, options.batches, options.threads, case)

    runs: dict[str, Callable[[], Measured]] = {
        OURS: lambda: ours(setting, 1.0, torch.float32),
        f"{OURS}[bfloat16 layers]": lambda: ours(setting, 1.0, torch.bfloat16),
        f"{OURS}[10 % kept]": lambda: ours(setting, 0.1, torch.float32),
        "torch.sparse_csr, symmetric, Adam(fused)": lambda: torch_csr(setting),
    }
    if checkout is not None:
        runs["LightGCN-PyTorch"] = lambda: lightgcn_pytorch(setting, checkout)
    rows: list[Row] = []
    for name, run in runs.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += as_rows(setting, name, run(), rows)
    print(report.table(rows))
    if options.json is not None:
        write(rows, options.json)
    return 1 if any(row["correct"] is False for row in rows) else 0


def as_rows(setting: Setting, name: str, measured: Measured, before: list[Row]) -> list[Row]:
    """One row for the epoch and one for the evaluation, whose metrics have to be those of the first provider."""
    shown = f"{setting.dataset.name} dim={DIM} layers={LAYERS} batch={BATCH}"
    rows = []
    parts = (
        ("lightgcn_epoch", "samples", setting.dataset.train.nnz, measured.epoch_s),
        ("lightgcn_evaluation", "users", setting.dataset.n_users, measured.evaluation_s),
    )
    for op, unit, units, seconds in parts:
        if seconds is None:
            continue
        row = result_row(op, setting.case.asdict(), shown, unit, name, setting.threads)
        row |= {"p20_us": seconds * 1e6, "p50_us": seconds * 1e6, "p80_us": seconds * 1e6, "calls": 1}
        row |= {
            "units_per_s": units / seconds,
            "correct": True,
            "note": measured.note,
            "data_hash": setting.dataset.hash,
        }
        if measured.metrics is not None:
            row["metrics"] = measured.metrics.values
            first = next((each["metrics"] for each in before if each.get("metrics") and "[" not in name), None)
            if first is not None and any(
                abs(first[key] - value) > CLOSE * value for key, value in row["metrics"].items()
            ):
                row |= dict.fromkeys(("p20_us", "p50_us", "p80_us", "calls", "units_per_s"))
                row |= {"correct": False, "note": f"wrong: metrics are {row['metrics']}, expected {first}"}
        rows.append(row)
    return rows


def ours(setting: Setting, density: float, hidden: torch.dtype) -> Measured:
    """The table as it is, evaluated; then an epoch from it as the trainer runs it."""
    graph = setting.graph
    slots = graph.nodes * DIM
    shape = {"kind": "full", "start": "full"} if density == 1 else {"kind": "bits", "start": "bernoulli"}
    table = PackedTable.init(graph.nodes, DIM, **shape, capacity=round(density * slots), std=STD)
    optimizer = Adam(table, lr=LR)
    model = LightGCN(graph, L2, LAYERS, hidden)
    sampler = Sampler(setting.dataset, seed=1)
    start = time.perf_counter()
    metrics = evaluate(model.for_ranking(table), setting.dataset, split="test")
    evaluation = time.perf_counter() - start
    model.train_(table, optimizer, Triples(*sampler.draw(1 << 40, 2 * BATCH)), BATCH)  # buffers are made
    start = time.perf_counter()
    chunk = CHUNK_STEPS * BATCH
    for at in range(0, sampler.epoch_draws, chunk):
        triples = Triples(*sampler.draw(at, min(chunk, sampler.epoch_draws - at)))
        model.train_(table, optimizer, triples, BATCH)
    epoch = time.perf_counter() - start
    note = "" if density == 1 else "one tenth of the weights"
    return Measured(epoch, evaluation, metrics if density == 1 else None, note)


def torch_csr(setting: Setting) -> Measured:
    """The best that torch can be made to do, sampling by ours: products that are their own backward, one fused Adam."""
    from .ops.lightgcn_step import LightgcnProblem
    from .providers.propagation import lightgcn_csr

    problem = LightgcnProblem(replace(setting.case, density=1.0), 1)
    trial = lightgcn_csr(problem)
    times = []
    for number in range(max(3, min(setting.batches, problem.n_sets))):
        start = time.perf_counter()
        trial.run(number)
        times.append(time.perf_counter() - start)
    steps = -(-setting.dataset.train.nnz // BATCH)
    sampler = Sampler(setting.dataset, seed=1)
    start = time.perf_counter()
    sampler.draw(0, sampler.epoch_draws)
    epoch = time.perf_counter() - start + steps * statistics.median(times)
    return Measured(epoch, None, None, f"median of {len(times)} mini-batches x {steps}; sampled by ours")


def lightgcn_pytorch(setting: Setting, checkout: Path) -> Measured:
    """Its own sampling, mini-batches and test, from the same table."""
    script = Path(__file__).with_name("lightgcn_pytorch.py")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npy"
        np.save(weights, setting.weights.numpy())
        numbers = [str(setting.batches), str(setting.threads)]
        command = [sys.executable, str(script), str(checkout.resolve()), str(setting.folder), str(weights), *numbers]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(setting.threads)}
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"--lightgcn-pytorch {checkout}: its code fails here: {lines[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    epoch = found["sample_s"] + found["batches"] * found["batch_s"]
    sampler = "its C++ sampler" if found["cpp_sampler"] else "its Python sampler"
    note = f"{sampler} {found['sample_s']:.1f} s, median of {setting.batches} mini-batches x {found['batches']}"
    metrics = Metrics({"recall@20": found["recall"], "ndcg@20": found["ndcg"]}, setting.dataset.n_users, 0)
    return Measured(epoch, found["test_s"], metrics, note)
