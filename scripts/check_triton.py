"""Compile every Triton kernel for a GPU that is not there, and fail if one uses local memory (spills, stack).

Runs each op on small tables on the CPU with every launch replaced by a compilation, so that the kernels are compiled
with the very arguments that the ops give them; results are garbage and unused. Prints registers, stack and shared
memory of each kernel.

    python scripts/check_triton.py [--arch 90]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from recsparse import triton_kernels as kernels  # type: ignore[attr-defined]
from recsparse.ops.pack import pack

ROWS, DENSITY, IDS = 600, 0.1, 400
# The ptxas of Triton 3.6 to 3.8 leaves up to 16 bytes of one to five kernels on the stack, with registers to spare.
STACK_ALLOWED = 0 if triton.__version__.startswith("3.9.") else 16
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class Usage(NamedTuple):
    """What a compiled kernel uses: registers a thread, bytes of stack and local memory a thread, shared bytes."""

    registers: int
    stack: int
    local: int
    shared: int


class OfflineDriver:
    """Stands for the CUDA driver as far as compiling goes."""

    def __init__(self, arch: int) -> None:
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Table(NamedTuple):
    """The arguments that describe a table."""

    words: torch.Tensor
    cols: torch.Tensor
    values: torch.Tensor
    layout: tuple[int, int, int]


def tables() -> Iterator[Table]:
    """Every kind at d = 64, one of the widest, and one of each 16-bit type."""
    rng = torch.Generator().manual_seed(0)
    cases = [("full", 64), ("prefix", 64), ("bits", 64), ("cols8", 64), ("bits", 256)]
    for kind, dim in cases:
        mask = torch.rand(ROWS, dim, generator=rng) < DENSITY
        mask = mask if kind in ("bits", "cols8") else torch.ones_like(mask)
        dtypes = [torch.float32, torch.float16, torch.bfloat16] if (kind, dim) == ("bits", 64) else [torch.float32]
        for dtype in dtypes:
            dense = torch.randn(ROWS, dim, generator=rng).to(dtype)
            index, cols, values = pack(dense, mask, kind, int(mask.sum()))
            code = ("full", "prefix", "bits", "cols8").index(kind)
            yield Table(index, cols, values, (code, ROWS, dim))


def call_ops(table: Table) -> None:
    """Every op once, as far as the table asks for other code than the others do."""
    index, cols, values, layout = table
    kind, _, dim = layout
    ids = torch.arange(IDS) % ROWS
    rows = kernels.lookup(index, cols, values, ids, *layout)
    kernels.lookup_backward(rows, index, cols, ids, *layout, -1, values.numel())
    if values.dtype == torch.float32:
        call_bags(table, rows, ids)
        if dim == 64:
            call_set_up(table)
    if kind > 1:
        call_optimizers(table, rows, ids)
    if (kind, dim) == (0, 64) or dim == 256:
        call_graph(dim)
        call_rank(dim)
        call_thresholds(dim)


def call_bags(table: Table, rows: torch.Tensor, ids: torch.Tensor) -> None:
    """lookup_bag and its gradients."""
    index, cols, values, layout = table
    offsets = torch.arange(0, IDS, 7)
    for mode, weights in ((0, None), (0, rows[:, 0].contiguous()), (1, None)):
        bags = kernels.lookup_bag(index, cols, values, ids, offsets, weights, *layout, mode)
        last = (*layout, mode, False, -1, values.numel())
        kernels.lookup_bag_backward(bags, index, cols, ids, offsets, weights, *last)
    kernels.lookup_bag_weights_backward(bags, index, cols, values, ids, offsets, *layout, False, -1)


def fake_graph(kind: torch.dtype) -> tuple[torch.Tensor, ...]:
    """The tensors of a graph of ROWS nodes with enough edges for every launch."""
    nodes = torch.zeros(ROWS, dtype=kind)
    return (
        torch.zeros(ROWS + 1, dtype=torch.int64),
        torch.zeros(5000, dtype=kind),
        nodes,
        nodes,
        nodes.float(),
        torch.zeros(1, dtype=torch.int64),
    )


def call_graph(dim: int) -> None:
    """spmm of each type of rows and ids."""
    for kind in (torch.int32, torch.int64):
        graph = fake_graph(kind)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            kernels.spmm(*graph, torch.zeros(ROWS, dim, dtype=dtype))


def call_rank(dim: int) -> None:
    """Every length of a list, and lists of several passes."""
    seen = torch.zeros(41, dtype=torch.int64), torch.zeros(9, dtype=torch.int32)
    for k in (10, 20, 64, 65):
        kernels.rank(torch.zeros(40, dim), torch.zeros(ROWS, dim), *seen, k)


def call_thresholds(dim: int) -> None:
    """soft_threshold of each granularity, with ids and without."""
    values = torch.zeros(ROWS, dim)
    for shape in ((1, 1), (1, dim), (ROWS, 1), (ROWS, dim)):
        for ids in (None, torch.zeros(IDS, dtype=torch.int64)):
            rows = kernels.soft_threshold(values, torch.zeros(shape), ids)
            kernels.soft_threshold_backward(rows, values, torch.zeros(shape), ids)


def call_set_up(table: Table) -> None:
    """What makes, inspects and rebuilds tables."""
    index, cols, values, layout = table
    kind, rows, _ = layout
    capacity = values.numel()
    dense, _ = kernels.unpack(index, cols, values, *layout)
    if kind > 1:  # zeros, as masks are here, are no full rows
        kernels.pack(dense, dense != 0, kind, capacity)
        kernels.convert_index(index, cols, capacity, *layout, kind)
    kernels.row_counts(index, cols, capacity, *layout)
    kernels.column_mask(index, cols, capacity, *layout, 0)
    kernels.init_values_(values, index, cols, *layout, 0, 0.01)
    kernels.select(values, capacity // 2)
    if kind > 1:
        for start in (1, 2):
            kernels.init_index_(index.clone(), cols.clone(), *layout, start, capacity, 0)
        keys = torch.arange(rows)
        for state in (None, values.float(), torch.zeros(2 * capacity)):
            kernels.prune_regrow_(index, cols, values, state, keys, keys.float(), *layout, 0, 100)
    indptr, items = torch.arange(rows + 1), torch.zeros(rows, dtype=torch.int32)
    for mode in (0, 1):
        kernels.sample(indptr, items, indptr[:-1], rows, 0, 0, IDS, mode)
    kernels.sample_synthetic(2**40, rows, 2, 9, 0, 0, IDS, device=index.device)


def call_optimizers(table: Table, rows: torch.Tensor, ids: torch.Tensor) -> None:
    """The ops that update weights."""
    index, cols, values, layout = table
    step = torch.zeros(1, dtype=torch.int64)
    dense = torch.zeros(ROWS, layout[2])
    gradients = (
        (rows.float(), ids, True),
        (rows.float(), ids, False),
        (dense, None, False),
        (values.float(), None, False),
    )
    # The optimisers differ in a few instructions: all of them on one table, Adam, the largest, on the others.
    graph = fake_graph(torch.int32)
    everything = layout[0] == 2 and layout[2] == 64 and values.dtype == torch.float32
    for optimizer in range(4) if everything else (3,):
        state = torch.zeros((0, values.numel(), ROWS, 2 * values.numel())[optimizer])
        triples = (ids % 300, ids % 300, (ids * 7) % 300)
        hyper = (optimizer, 0.01, 0.9, 0.999, 1e-8, 0.0, 0.0, 0)
        kernels.bpr_step_(values, state, step, index, cols, *triples, *layout, 300, 200, *hyper)
        kernels.bpr_grow_scores(index, cols, values, *triples, *layout, 300, 100)
        # Three layers, and one, take every way to read a row.
        for layers, half_hidden in (
            ((3, False), (3, True), (1, False)) if everything and optimizer == 3 else ((3, False),)
        ):
            inputs = (*graph, *triples, *layout, 300)
            kernels.lightgcn_step_(values, state, step, index, cols, *inputs, 200, layers, half_hidden, *hyper)
            kernels.lightgcn_grow_scores(values, index, cols, *inputs, layers, half_hidden, 100)
        for grad, named, lazy in gradients:
            common = (step, index, cols, grad, named, *layout)
            if optimizer == 0:
                kernels.sgd_(values, *common, 0.01, 0.0, lazy, 0)
            elif optimizer == 3:
                kernels.adam_(values, state, *common, 0.01, 0.9, 0.999, 1e-8, 0.0, lazy, 0)
            else:
                op = kernels.adagrad_ if optimizer == 1 else kernels.rowwise_adagrad_
                op(values, state, *common, 0.01, 1e-8, 0.0, lazy, 0)


def usage(cubin: bytes) -> Usage:
    """Reads the resource table of a cubin."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", text)
    if found is None:
        raise SystemExit(f"check_triton: cuobjdump says nothing about resources: {text}")
    registers, stack, shared, local = map(int, found.groups())
    return Usage(registers, stack, local, shared)


def compile_for(arch: int, number: int) -> dict[str, Usage]:
    """Worst usage of each kernel for one of the tables; in a process of its own."""
    driver.set_active(OfflineDriver(arch))
    worst: dict[str, Usage] = {}
    seen: set[str] = set()
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled = run(self, *args, grid=grid, warmup=True, **options)
        if compiled.hash not in seen:
            seen.add(compiled.hash)
            name = self.fn.__name__
            now = usage(compiled.asm["cubin"])
            worst[name] = Usage(*map(max, worst[name], now)) if name in worst else now
        return compiled

    JITFunction.run = compile_only
    for empty, zeros in (("empty", torch.zeros), ("empty_like", torch.zeros_like)):
        setattr(torch, empty, zeros)  # what no kernel writes is at least zero
    call_ops(list(tables())[number])
    return worst


def compile_all(arch: int) -> dict[str, Usage]:
    """Worst usage of each kernel over the tables, one process each."""
    count = len(list(tables()))
    workers = min(count, len(os.sched_getaffinity(0)))
    pool = multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=1)
    worst: dict[str, Usage] = {}
    with pool:
        for part in pool.starmap(compile_for, [(arch, number) for number in range(count)], chunksize=1):
            for name, now in part.items():
                worst[name] = Usage(*map(max, worst[name], now)) if name in worst else now
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile every Triton kernel and fail on local memory.")
    parser.add_argument("--arch", type=int, default=90, help="compute capability, 90 for sm_90")
    worst = compile_all(parser.parse_args().arch)
    print(f"{'kernel':34} registers  stack  local  shared   (worst of all tables, triton {triton.__version__})")
    for name, used in sorted(worst.items()):
        print(f"{name:34} {used.registers:9} {used.stack:6} {used.local:6} {used.shared:7}")
    bad = [name for name, used in worst.items() if used.stack > STACK_ALLOWED or used.local]
    if bad:
        print(f"check_triton: local memory in {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
