"""Peak memory of LightGCN training on a generated graph: ours on a packed table against the dense one in torch.

Each provider trains a few mini-batches in a process of its own, which says how far its peak rose above what it held
after its imports. Torch's form is a tuned one: sparse products that are their own backward, and a fused Adam.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from recsparse import _host, arguments
from recsparse.cli import Parser
from recsparse.data import Interactions
from recsparse.errors import UserError
from recsparse.graph import Graph
from recsparse.runs import peak_rss_bytes

from . import machine

DIM, LAYERS, BATCH, L2, STEPS = 64, 3, 2048, 1e-4, 2
ITEMS_SHARE = 0.2
DEGREES = 3, 12  # least and most interactions of a user
PROVIDERS = ("recsparse", "torch.sparse_csr, symmetric, Adam(fused)")


def main(argv: list[str]) -> int:
    """The command; see the module's description."""
    parser = Parser(prog="recsparse bench graph-memory", description=__doc__)
    parser.add_argument("--nodes", type=arguments.count, default=5_000_000, help="users and items (default: 5e6)")
    parser.add_argument("--density", type=arguments.density, default=0.1, help="kept weights of ours (default: 0.1)")
    parser.add_argument("--provider", choices=PROVIDERS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")
    options = parser.parse_args(argv)
    if options.nodes < 1000:
        raise UserError(f"--nodes is {options.nodes}; it must be 1000 or above")
    if options.provider is not None:
        print(json.dumps(measure(options.provider, options.nodes, options.density)))
        return 0
    found = {}
    for name in PROVIDERS:
        command = [sys.executable, "-m", "recsparse", "bench", "graph-memory", "--provider", name]
        command += ["--nodes", str(options.nodes), "--density", str(options.density)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}: out of memory?"]
            raise UserError(f"{name} fails: {lines[-1]}")
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:<45}{found[name]['peak_bytes'] / 1e9:8.2f} GB  loss {found[name]['loss']:.4f}", flush=True)
    ours, torchs = (found[name]["peak_bytes"] for name in PROVIDERS)
    print(f"ours / torch: {ours / torchs:.2f}")
    if options.json is not None:
        result = {"nodes": options.nodes, "density": options.density, "providers": found, "machine": machine.describe()}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def measure(provider: str, nodes: int, density: float) -> dict[str, float]:
    """Peak bytes above the imports, of graph, table and `STEPS` mini-batches, and the last loss."""
    torch.set_num_threads(machine.cpus())
    baseline = peak_rss_bytes()
    n_items = int(nodes * ITEMS_SHARE)
    n_users = nodes - n_items
    pairs = n_users * (sum(DEGREES) // 2) + n_items
    graph = Graph.from_interactions(
        Interactions(*_host.materialise_synthetic(n_users, n_items, *DEGREES, 1, pairs)), n_items
    )
    source = torch.Generator().manual_seed(0)
    sides = (n_users, n_items, n_items)
    triples = [torch.randint(side, (STEPS * BATCH,), generator=source) for side in sides]
    loss = _ours(graph, triples, density) if provider == PROVIDERS[0] else _torch(graph, triples)
    return {"peak_bytes": peak_rss_bytes() - baseline, "loss": loss, "edges": graph.edges}


def _ours(graph: Graph, triples: list[torch.Tensor], density: float) -> float:
    from recsparse import ops
    from recsparse.optim import Adam
    from recsparse.table import PackedTable

    table = PackedTable.init(graph.nodes, DIM, kind="bits", capacity=int(graph.nodes * DIM * density), std=0.1)
    losses = ops.lightgcn_step_(table, Adam(table), graph, *triples, layers=LAYERS, batch_size=BATCH, l2=L2)
    return float(losses[-1])


def _torch(graph: Graph, triples: list[torch.Tensor]) -> float:
    from .providers.propagation import Symmetric

    matrix = graph.to_sparse_csr()
    weight = torch.nn.Parameter(torch.empty(graph.nodes, DIM).normal_(std=0.1))
    optimizer = torch.optim.Adam([weight], fused=True)
    for number in range(STEPS):
        users, pos, neg = (ids[number * BATCH : (number + 1) * BATCH] for ids in triples)
        rows = users, graph.n_users + pos, graph.n_users + neg
        layer = mean = weight
        for _ in range(LAYERS):
            layer = Symmetric.apply(matrix, layer)
            mean = mean + layer
        u, i, j = (mean[each] / (LAYERS + 1) for each in rows)
        ranking = torch.nn.functional.softplus((u * (j - i)).sum(1)).mean()
        loss = ranking + L2 / (2 * BATCH) * sum(weight[each].square().sum() for each in rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(ranking)
