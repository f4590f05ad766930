"""Runs each op and saves what it returned: `python isa_cases.py FILE`, under the RECSPARSE_CPU_ISA to be tested."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from strategies import DIMS, KINDS, random_case, random_table, random_triples

from recsparse import ops
from recsparse.optim import OPTIMIZERS, Adam
from recsparse.reference.rounding import round_stochastic, rounding_bits
from recsparse.table import PackedTable

USERS, ROWS = 100, 230


def results() -> dict[str, torch.Tensor]:
    out: dict[str, torch.Tensor] = {}
    for kind in KINDS:
        for dim in DIMS:
            dense, mask = random_case(kind, ROWS, dim, seed=dim, scale=0.3)
            table = PackedTable.from_dense(dense, mask, kind=kind)
            out |= {f"exact {kind} {dim} pack {name}": t.clone() for name, t in table.state_dict().items()}
            out[f"exact {kind} {dim} counts"] = table.row_counts()
            ids = torch.randint(0, ROWS, (1_500,), generator=torch.Generator().manual_seed(dim))
            rows = ops.lookup(table, ids)
            out[f"exact {kind} {dim} lookup"] = rows
            grad = torch.ops.recsparse.lookup_backward(
                rows, table.index, table.cols, ids, *table.layout, -1, table.capacity
            )
            out[f"exact {kind} {dim} lookup_backward"] = grad
            offsets = torch.arange(0, 1_500, 7)
            bags = ops.lookup_bag(table, ids, offsets)
            out[f"exact {kind} {dim} lookup_bag"] = bags
            weights = torch.linspace(-1, 1, 1_500)
            rest = (ids, offsets, weights, *table.layout, 0, False, 3, table.capacity)
            grad = torch.ops.recsparse.lookup_bag_backward(bags, table.index, table.cols, *rest)
            out[f"close {kind} {dim} lookup_bag_backward"] = grad
            grad = torch.ops.recsparse.lookup_bag_weights_backward(
                bags, table.index, table.cols, table.values, ids, offsets, *table.layout, False, 3
            )
            out[f"close {kind} {dim} lookup_bag_weights_backward"] = grad
            start = "full" if kind == "full" else "prefix" if kind == "prefix" else "bernoulli"
            capacity = ROWS * dim // (1 if kind == "full" else 3)
            made = PackedTable.init(ROWS, dim, kind=kind, capacity=capacity, start=start, seed=dim)
            out |= {f"exact {kind} {dim} init {name}": t for name, t in made.state_dict().items()}
            triples = random_triples(500, USERS, ROWS - USERS, seed=dim)
            keys, scores = ops.bpr_grow_scores(table, *triples, item_offset=USERS, limit=10**6)
            dense_scores = torch.zeros(ROWS * dim)
            dense_scores[keys] = scores
            out[f"close {kind} {dim} scores"] = dense_scores
            optimizer = Adam(table)
            loss = ops.bpr_step_(table, optimizer, *triples, item_offset=USERS, batch_size=200, l2=0.01)
            first, second = optimizer.split()
            parts = {"loss": loss, "values": table.values, "first": first, "second": second}
            out |= {f"close {kind} {dim} bpr_step_ {name}": t for name, t in parts.items()}
            for cls in OPTIMIZERS.values():
                for lazy in (False, True):
                    other = PackedTable.from_dense(dense, mask, kind=kind)
                    optimizer = cls(other, lr=0.01, weight_decay=0.1, lazy=lazy)
                    optimizer.update_rows(ids, rows)
                    optimizer.update_packed(other.values.clone())
                    name = f"close {kind} {dim} {cls.name} {lazy}"
                    out |= {f"{name} values": other.values, f"{name} state": optimizer.state}
            whole = PackedTable.from_dense(dense.mul(10).round(), mask, kind=kind)  # scores are exact
            none = torch.zeros(USERS + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
            lists = ops.rank_packed(whole, torch.arange(USERS), *none, 20, item_offset=USERS)
            out |= {f"exact {kind} {dim} rank {name}": t for name, t in zip(("items", "scores"), lists, strict=True)}
            if kind in ("bits", "cols8"):
                out |= {f"exact {kind} {dim} prune_regrow_ {name}": t for name, t in pruned(dense, mask, kind).items()}
    for dim in DIMS:
        values = torch.randn(ROWS, dim, generator=torch.Generator().manual_seed(dim))
        ids = torch.randint(0, ROWS, (500,), generator=torch.Generator().manual_seed(dim))
        for shape in ((1, 1), (1, dim), (ROWS, 1), (ROWS, dim)):
            thresholds = torch.randn(shape, generator=torch.Generator().manual_seed(1))
            rows = ops.soft_threshold(values, thresholds, ids)
            both = ops.soft_threshold_backward(rows, values, thresholds, ids)
            name = f"close {dim} {list(shape)} soft_threshold"
            out |= {f"{name} {part}": t for part, t in zip("vs", both, strict=True)} | {name: rows}
    for size in (1_000, 300_001):  # counted outright; bracketed by a sample first
        values = torch.randn(size, generator=torch.Generator().manual_seed(size)).mul(64).round()  # with many ties
        for k in (1, size // 10, size // 2, size):
            out[f"exact select {size} {k}"] = torch.tensor(ops.select(values, k), dtype=torch.float64)
    for dtype in (torch.float16, torch.bfloat16):
        out |= small_results(dtype)
    return out


def small_results(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """16-bit weights. A rounded weight may differ by a step where float32 arithmetic differs in its last bit, so each
    instruction set says whether it has rounded its own float32 result as the reference does."""
    out: dict[str, torch.Tensor] = {}
    for kind in KINDS:
        for dim in DIMS:
            name = f"{kind} {dim} {dtype}"
            table = random_table(kind, ROWS, dim, seed=dim, scale=0.3, dtype=dtype)
            wide = PackedTable(ROWS, dim, kind, table.index, table.cols, table.values.float())
            ids = torch.randint(0, ROWS, (500,), generator=torch.Generator().manual_seed(dim))
            rows = ops.lookup(table, ids)
            out[f"exact {name} lookup"] = rows
            out[f"exact {name} lookup_backward"] = torch.ops.recsparse.lookup_backward(
                rows, table.index, table.cols, ids, *table.layout, -1, table.capacity
            )
            triples = random_triples(200, USERS, ROWS - USERS, seed=dim)
            for each in (table, wide):
                ops.bpr_step_(each, Adam(each, seed=7), *triples, item_offset=USERS, batch_size=200, l2=0.01)
            mask = table.mask()
            random = rounding_bits(7, 1, torch.arange(ROWS)[:, None], mask.cumsum(1) - 1)
            rounded = round_stochastic(wide.to_dense(), dtype, random)[mask]
            out[f"exact {name} rounds like the reference"] = rounded == table.values[: table.nnz]
    return out


def pruned(dense: torch.Tensor, mask: torch.Tensor, kind: str) -> dict[str, torch.Tensor]:
    """A table and its moments after a third of its weights has made room for others."""
    table = PackedTable.from_dense(dense, mask, kind=kind)
    moments = torch.arange(2.0 * table.capacity)
    rng = torch.Generator().manual_seed(table.capacity)
    free = (~mask).view(-1).nonzero()[:, 0]
    keys = free[torch.rand(len(free), generator=rng) < 0.7]
    scores = torch.randn(len(keys), generator=rng)
    amount = min(len(keys), table.capacity // 3)
    ops.prune_regrow_(table, moments, keys, scores, drop=amount, grow=amount)
    return {**table.state_dict(), "moments": moments}


if __name__ == "__main__":
    save_file(results(), sys.argv[1], metadata={"isa": torch.ops.recsparse.cpu_isa()})
