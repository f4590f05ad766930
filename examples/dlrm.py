"""A small DLRM-style click model whose embedding tables keep 20 % of their weights.

Trains on generated clicks and prints the loss and the AUC on clicks that it has not seen, next to the best constant.

    python examples/dlrm.py                       # fused: tables are updated in the backward
    python examples/dlrm.py --mode ordinary       # packed gradients, any torch optimiser
    python examples/dlrm.py --mode dense          # nn.Embedding, for comparison
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as log_loss

from recsparse.models import DLRM
from recsparse.nn import SparseEmbedding
from recsparse.optim import Adam

ROWS = (100, 2_000, 10_000, 50_000)  # ids of the categorical features
DENSE = 4
LR = 0.003


class Clicks:
    """Clicks of a hidden model: each id has a hidden trait, and likes some traits of the other features' ids."""

    def __init__(self, seed: int, traits: int = 4) -> None:
        source = torch.Generator().manual_seed(seed)
        self.traits = [torch.randn(rows, traits, generator=source) for rows in ROWS]
        self.bias = [torch.randn(rows, generator=source) for rows in ROWS]
        self.weight = torch.randn(DENSE, generator=source)

    def batches(self, count: int, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(dense [size, DENSE], ids int64 [features, size], clicked float32 [size]); popular ids come often."""
        source = torch.Generator().manual_seed(seed)
        for _ in range(count):
            dense = torch.randn(size, DENSE, generator=source)
            share = torch.rand(len(ROWS), size, generator=source)
            ids = (torch.tensor(ROWS)[:, None] ** share).long() - 1
            found = [trait[column] for trait, column in zip(self.traits, ids, strict=True)]
            total = torch.stack(found).sum(0)
            agree = 0.5 * (total.square().sum(1) - sum(each.square().sum(1) for each in found))
            likes = sum(bias[column] for bias, column in zip(self.bias, ids, strict=True))
            logit = 0.5 * agree + likes + dense @ self.weight - 0.5
            yield dense, ids, torch.bernoulli(torch.sigmoid(logit), generator=source)


def build(mode: str, dim: int, density: float, seed: int) -> tuple[DLRM, torch.optim.Optimizer]:
    """The model and the optimiser of what the backward does not update itself."""
    torch.manual_seed(seed)
    embeddings: list[nn.Module] = []
    for feature, rows in enumerate(ROWS):
        sparse = SparseEmbedding(rows, dim, density=density, std=0.1, seed=seed + feature)
        if mode == "dense":
            embeddings.append(nn.Embedding.from_pretrained(0.1 * torch.randn(rows, dim), freeze=False))
        elif mode == "ordinary":
            embeddings.append(sparse)
        else:
            table = sparse.table
            embeddings.append(SparseEmbedding.from_table(table, fused=True, optimizer=partial(Adam, lr=LR)))
    torch.manual_seed(seed)  # the MLPs start alike in all modes
    model = DLRM(embeddings, DENSE, dim)
    return model, torch.optim.Adam(model.parameters(), lr=LR)


def auc(score: Tensor, clicked: Tensor) -> float:
    """Share of (clicked, not clicked) pairs in the right order."""
    ranks = score.argsort().argsort().double() + 1
    positive = clicked.sum().double()
    return float((ranks[clicked > 0].sum() - positive * (positive + 1) / 2) / (positive * (len(clicked) - positive)))


@torch.no_grad()
def evaluate(model: DLRM, clicks: Clicks, seed: int) -> tuple[float, float, float]:
    """Loss of the model, loss of the best constant, AUC: on 20,000 clicks of another seed than those of training."""
    ((dense, ids, clicked),) = clicks.batches(1, 20_000, seed + 10**6)
    model.eval()
    logits = model(dense, ids)
    model.train()
    constant = torch.full_like(clicked, torch.logit(clicked.mean()).item())
    return float(log_loss(logits, clicked)), float(log_loss(constant, clicked)), auc(logits, clicked)


def nbytes(model: DLRM) -> int:
    """Bytes of the embedding tables, without optimiser state."""
    tables = model.embeddings
    return sum(t.nbytes()["total"] if isinstance(t, SparseEmbedding) else t.weight.nbytes for t in tables)


def train(
    model: DLRM, optimizer: torch.optim.Optimizer, clicks: Clicks, steps: int, batch: int, seed: int
) -> list[float]:
    """The loss of each step."""
    losses = []
    for dense, ids, clicked in clicks.batches(steps, batch, seed + 1):
        loss = log_loss(model(dense, ids), clicked)
        optimizer.zero_grad()
        loss.backward()  # updates the fused tables
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def main(argv: list[str] | None = None) -> tuple[float, float, float]:
    """Train and report; returns (loss, loss of the best constant, AUC)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("fused", "ordinary", "dense"), default="fused", help="how the tables train")
    parser.add_argument("--density", type=float, default=0.2, help="kept weights of a table (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=16, help="columns of a table (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="mini-batches (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1024, help="clicks a mini-batch (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the clicks and of the model (default: %(default)s)")
    args = parser.parse_args(argv)
    clicks = Clicks(args.seed)
    model, optimizer = build(args.mode, args.dim, args.density, args.seed)
    print(f"{args.mode}: tables of {nbytes(model) / 1e6:.2f} MB, {sum(ROWS)} rows x {args.dim}")
    start = time.perf_counter()
    losses = train(model, optimizer, clicks, args.steps, args.batch, args.seed)
    seconds = time.perf_counter() - start
    loss, constant, area = evaluate(model, clicks, args.seed)
    last = sum(losses[-20:]) / len(losses[-20:])
    print(f"{args.steps} steps in {seconds:.1f} s; training loss {losses[0]:.4f} -> {last:.4f}")
    print(f"test: loss {loss:.4f} (constant {constant:.4f}), AUC {area:.4f}")
    return loss, constant, area


if __name__ == "__main__":
    main()
