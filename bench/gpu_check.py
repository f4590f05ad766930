"""The checks of bench/gpu_check.sh that run inside Python, one subcommand a stage.

    stream    a launch reaches torch's current stream, also in a captured graph
    ceilings  copy bandwidth and random-gather bandwidth of this GPU
    smoke     each probe and op once on small shapes, for compute-sanitizer
    summary   collects the stages' results into summary.json and summary.md

A stage prints its result as one line of JSON, the last of its log.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

GATHER_ROWS_BYTES = (64, 128, 256)


def stage_stream() -> dict[str, Any]:
    """On a side stream: wait, torch writes 1, the probe writes 2. A probe on another stream would come too early."""
    import torch

    cell = torch.zeros(1 << 20, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # clock cycles: about a tenth of a second
        cell.fill_(1.0)
        torch.ops.recsparse.probe_fill_(cell, 2.0)
        read = cell.clone()
        pending = not side.query()  # the wait was long enough to tell the orders apart
    side.synchronize()
    ordered = bool((read == 2.0).all()) and bool((cell == 2.0).all())

    # A launch on any other stream would be missing from the graph, or would break its capture.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.ops.recsparse.probe_fill_(cell, 3.0)
    untouched = bool((cell == 2.0).all())
    graph.replay()
    torch.cuda.synchronize()
    captured = untouched and bool((cell == 3.0).all())
    return {"ok": ordered and pending and captured, "ordered": ordered, "pending": pending, "captured": captured}


def median_seconds(op: Callable[..., object], inputs: Sequence[tuple[Any, ...]], rounds: int = 7) -> float:
    """Median time of a call of `op` by CUDA events; the inputs take turns."""
    import torch

    times = []
    for index in range(rounds + 1):
        for arguments in inputs:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            op(*arguments)
            end.record()
            end.synchronize()
            if index > 0:  # the first round warms up
                times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def stage_ceilings(nbytes: int | None, count: int) -> dict[str, Any]:
    """Bandwidths in bytes/s, read and written bytes counted; gathers read 8 bytes an id besides their rows.

    Args:
        nbytes: size of the gathered table; a quarter of it is copied. Default: 16 GiB or a quarter of the free memory.
        count: rows a gather reads.
    """
    import torch

    ops = torch.ops.recsparse
    if nbytes is None:
        nbytes = min(16 << 30, torch.cuda.mem_get_info()[0] // 4)
    nbytes -= nbytes % 4096
    table = torch.randn(nbytes // 4, device="cuda")

    source = table[: nbytes // 16]
    target = torch.empty_like(source)
    moved = 2 * source.nbytes
    rates = {
        "copy (recsparse)": moved / median_seconds(ops.probe_copy_, [(target, source)]),
        "copy (torch)": moved / median_seconds(target.copy_, [(source,)]),
    }
    target.zero_()
    ops.probe_copy_(target, source)
    exact = bool(torch.equal(source, target))

    generator = torch.Generator(device="cuda").manual_seed(0)
    for row_bytes in GATHER_ROWS_BYTES:
        rows = table.view(-1, row_bytes // 4)
        # Fresh ids each call: repeated ones would be served by the cache.
        ids = [torch.randint(len(rows), (count,), device="cuda", generator=generator) for _ in range(4)]
        moved = count * (8 + 2 * row_bytes)
        exact = exact and bool(torch.equal(ops.probe_gather(rows, ids[0]), rows[ids[0]]))
        ours = median_seconds(ops.probe_gather, [(rows, i) for i in ids])
        torchs = median_seconds(torch.index_select, [(rows, 0, i) for i in ids])
        rates[f"gather {row_bytes} B (recsparse)"] = moved / ours
        rates[f"gather {row_bytes} B (torch.index_select)"] = moved / torchs
    return {"ok": exact, "exact": exact, "bytes_per_s": rates}


def stage_smoke() -> dict[str, Any]:
    """Sizes that are no multiple of a block or a tile, so that a wrong bound is out of bounds."""
    import torch

    import recsparse.ops

    ops = torch.ops.recsparse
    exact = True
    for count in (1, 255, 1025):
        cell = torch.empty(count, device="cuda")
        ops.probe_fill_(cell, 2.0)
        source = torch.randn(count * 4, device="cuda")
        target = torch.empty_like(source)
        ops.probe_copy_(target, source)
        exact = exact and bool((cell == 2.0).all()) and bool(torch.equal(source, target))
        for row_bytes in GATHER_ROWS_BYTES:
            rows = torch.randn(37, row_bytes // 4, device="cuda")
            ids = torch.randint(37, (count,), device="cuda")
            exact = exact and bool(torch.equal(ops.probe_gather(rows, ids), rows[ids]))
    graph = smoke_graph(1_300, 7)  # item 0 has so many users that its row is cut
    rows = torch.ones(graph.nodes, 33, device="cuda")
    exact = exact and bool(torch.isfinite(recsparse.ops.spmm(graph, rows)).all())
    exact = exact and all(
        smoke_table(kind, dim) for kind in ("full", "prefix", "bits", "cols8") for dim in (33, 64, 256)
    )
    return {"ok": exact, "exact": exact}


def smoke_table(kind: str, dim: int) -> bool:
    """Each op of a table once, against the same on the CPU where the bits must agree."""
    import torch

    from recsparse import ops
    from recsparse.optim import Adam
    from recsparse.table import PackedTable

    rows, users = 230, 100
    start = {"full": "full", "prefix": "prefix"}.get(kind, "bernoulli")
    capacity = rows * dim // (1 if kind == "full" else 3)
    options = {"kind": kind, "capacity": capacity, "start": start, "seed": dim}
    table, twin = (PackedTable.init(rows, dim, **options, device=device) for device in ("cuda", "cpu"))
    ids = torch.randint(rows, (301,))
    exact = bool(torch.equal(ops.lookup(table, ids.cuda()).cpu(), ops.lookup(twin, ids)))
    exact = exact and ops.select(table.values, capacity // 2) == ops.select(twin.values, capacity // 2)
    triples = [torch.randint(limit, (257,), device="cuda") for limit in (users, rows - users, rows - users)]
    optimizer = Adam(table)
    ops.bpr_step_(table, optimizer, *triples, item_offset=users, batch_size=100)
    optimizer.update_rows(ids.cuda(), torch.ones(301, dim, device="cuda"))
    optimizer.update_packed(torch.ones(capacity, device="cuda"))
    table.values.requires_grad_()
    ops.lookup_bag(table, ids.cuda(), torch.tensor([0, 3, 200], device="cuda")).sum().backward()
    ops.lookup(table, ids.cuda()).sum().backward()
    table.values.requires_grad_(False)
    if kind in ("bits", "cols8"):
        keys, scores = ops.bpr_grow_scores(table, *triples, item_offset=users, limit=50)
        ops.prune_regrow_(table, optimizer.state, keys, scores, drop=40, grow=40)
    graph = smoke_graph(users, rows - users)
    ops.lightgcn_step_(table, optimizer, graph, *triples, layers=2, batch_size=100)
    ops.lightgcn_grow_scores(table, graph, *triples, layers=2, limit=50)
    everyone, indptr = torch.arange(users, device="cuda"), torch.arange(users + 1, device="cuda")
    ops.rank_packed(table, everyone, indptr, torch.zeros(users, dtype=torch.int32).cuda(), 20, item_offset=users)
    ops.raise_device_errors(table.values)
    table.check_invariants()
    return exact


def smoke_graph(users: int, items: int) -> Any:
    """Everybody has item 0 and another one, on the GPU."""
    import numpy as np

    from recsparse.data import Interactions
    from recsparse.graph import Graph

    pairs = np.stack([np.zeros(users), 1 + np.arange(users) % (items - 1)], 1).astype(np.int32)
    indptr = np.arange(0, 2 * users + 1, 2, dtype=np.int64)
    return Graph.from_interactions(Interactions(indptr, pairs.reshape(-1)), items).to("cuda")


def last_json(log: Path) -> dict[str, Any]:
    """The result a stage printed, {} if it printed none."""
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith("{"):
            try:
                return dict(json.loads(line))
            except json.JSONDecodeError:
                continue
    return {}


def bench_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table: all that were timed or wrong, with their speed relative to the best peer."""
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        if row["units_per_s"] and not row["provider"].startswith("recsparse"):
            key = row["op"], row["shown"]
            best[key] = max(best.get(key, 0.0), row["units_per_s"])
    lines = []
    for row in rows:
        if row["op"] == "ceiling" or (not row["units_per_s"] and row["correct"] is not False):
            continue
        head = f"| {row['op']} | {row['shown']} | {row['provider']} "
        if not row["units_per_s"]:
            lines.append(f"{head}| {row['note']} | | |")
            continue
        share = "" if row["pct_ceiling"] is None else f"{row['pct_ceiling']:.0f} %"
        peer = best.get((row["op"], row["shown"]))
        ratio = "" if peer is None else f"{row['units_per_s'] / peer:.2f}x"
        lines.append(f"{head}| {row['p50_us']:.1f} | {share} | {ratio} |")
    title = "| op | case | provider | p50 us | of the ceiling | against the best peer |"
    return ["", title, "|---|---|---|---:|---:|---:|", *lines] if lines else []


def write_summary(out: Path) -> bool:
    """summary.json and summary.md from stages.tsv (name, status, seconds) and the logs; True if no stage failed."""
    stages = []
    for line in (out / "stages.tsv").read_text().splitlines():
        name, status, seconds = line.split("\t")
        stages.append(
            {"stage": name, "status": status, "seconds": int(seconds), "result": last_json(out / f"{name}.log")}
        )
    machine: dict[str, Any] = {}
    try:
        import torch

        device = torch.cuda.get_device_properties(0)
        machine = {
            "gpu": device.name,
            "memory_bytes": device.total_memory,
            "multiprocessors": device.multi_processor_count,
            "l2_bytes": device.L2_cache_size,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
        }
    except Exception as error:
        machine = {"error": str(error)}
    rows = [row for file in sorted(out.glob("bench-*.json")) for row in json.loads(file.read_text())]
    (out / "summary.json").write_text(
        json.dumps({"machine": machine, "stages": stages, "bench": rows}, indent=2) + "\n"
    )

    text = ["# GPU check", "", f"{machine.get('gpu', 'unknown GPU')}, torch {machine.get('torch', '?')}", ""]
    text += ["| stage | status | seconds |", "|---|---|---|"]
    text += [f"| {stage['stage']} | {stage['status']} | {stage['seconds']} |" for stage in stages]
    for stage in stages:
        rates = stage["result"].get("bytes_per_s", {})
        if rates:
            text += ["", "| bandwidth, read + written | GB/s |", "|---|---|"]
            text += [f"| {name} | {rate / 1e9:.0f} |" for name, rate in rates.items()]
    text += bench_table(rows)
    (out / "summary.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))
    return all(stage["status"] != "failed" for stage in stages)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["stream", "ceilings", "smoke", "summary"])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the logs, for summary")
    parser.add_argument("--table-bytes", type=int, help="size of the gathered table (default: as memory allows)")
    parser.add_argument("--ids", type=int, default=4 << 20, help="rows a gather call reads")
    options = parser.parse_args()
    if options.stage == "summary":
        return 0 if write_summary(options.out) else 1

    from recsparse import _native

    _native.load()
    if options.stage == "stream":
        result = stage_stream()
    elif options.stage == "ceilings":
        result = stage_ceilings(options.table_bytes, options.ids)
    else:
        result = stage_smoke()
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
