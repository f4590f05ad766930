"""Propagation and LightGCN: ours, and sparse products of torch and scipy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recsparse import ops
from recsparse.backend import resolve_backend
from recsparse.optim import Adam
from recsparse.table import PackedTable

from .. import inputs, memory
from ..ops.lightgcn_step import CHUNK, L2, LAYERS, LR, LightgcnProblem
from ..ops.spmm import SpmmProblem
from ..registry import ANYWHERE, CUDA, OURS, Traffic, Trial, needs, provider

INDEX64, INDEX32 = 8, 4


@provider("spmm", OURS, devices=ANYWHERE)
def spmm(problem: SpmmProblem) -> Trial:
    return _spmm(problem, resolve_backend("auto", problem.graph.scale.device.type))


@provider("spmm", f"{OURS}[triton]", devices=CUDA)
def spmm_triton(problem: SpmmProblem) -> Trial:
    return _spmm(problem, "triton")


def _spmm(problem: SpmmProblem, backend: str) -> Trial:
    graph, rows = problem.graph, problem.typed

    @torch.no_grad()
    def run(number: int) -> Tensor:
        return ops.spmm(graph, rows[number], backend=backend)

    size = problem.case.value_type.itemsize
    return Trial(
        run,
        lambda number: run(number)[problem.check_rows],
        problem.traffic(size, graph.neighbours.element_size()),
        graph.nbytes(),
        2 * graph.edges,
        backend=backend,
        note="allocates the result",
        dtype=problem.case.dtype,
    )


def _product(problem: SpmmProblem, matrix: Any, multiply: Callable[[Any, Tensor], Tensor], edge_bytes: int) -> Trial:
    rows = problem.floats

    @torch.no_grad()
    def run(number: int) -> Tensor:
        return multiply(matrix, rows[number])

    held = 2 * problem.graph.edges * edge_bytes + INDEX64 * problem.graph.nodes
    return Trial(
        run,
        lambda number: run(number)[problem.check_rows],
        problem.traffic(inputs.FLOAT, edge_bytes),
        held,
        2 * problem.graph.edges,
        note="allocates the result",
    )


@provider("spmm", "torch.sparse_csr", devices=ANYWHERE)
def sparse_csr(problem: SpmmProblem) -> Trial:
    return _product(problem, problem.csr, torch.matmul, INDEX64 + inputs.FLOAT)


@provider("spmm", "torch.sparse_csr[int32]", devices=ANYWHERE)
def sparse_csr_int32(problem: SpmmProblem) -> Trial:
    csr = problem.csr
    short = torch.sparse_csr_tensor(csr.crow_indices().int(), csr.col_indices().int(), csr.values(), csr.shape)
    return _product(problem, short, torch.matmul, INDEX32 + inputs.FLOAT)


@provider("spmm", "torch.sparse_coo", devices=ANYWHERE)
def sparse_coo(problem: SpmmProblem) -> Trial:
    """What LightGCN-PyTorch multiplies by."""
    matrix = problem.csr.to_sparse_coo().coalesce()
    return _product(problem, matrix, torch.sparse.mm, 2 * INDEX64 + inputs.FLOAT)


@provider("spmm", "scipy", needs("scipy.sparse"))
def scipy_csr(problem: SpmmProblem) -> Trial:
    from scipy.sparse import csr_matrix

    csr = problem.csr
    arrays = (csr.values().numpy(), csr.col_indices().int().numpy(), csr.crow_indices().int().numpy())
    matrix = csr_matrix(arrays, shape=tuple(csr.shape))
    return _product(problem, matrix, lambda m, x: torch.from_numpy(m @ x.numpy()), INDEX32 + inputs.FLOAT)


@provider("spmm", "torch_geometric.LGConv", needs("torch_geometric"))
def lgconv(problem: SpmmProblem) -> Trial:
    """On an edge list, as its LightGCN is used: rows gathered and scattered. The normalisation is computed before."""
    from torch_geometric.nn import LGConv

    coo = problem.csr.to_sparse_coo().coalesce()
    layer, edges = LGConv(normalize=False), coo.indices().flip(0).contiguous()
    return _product(problem, coo.values(), lambda weights, x: layer(x, edges, weights), 2 * INDEX64 + inputs.FLOAT)


def _step_traffic(problem: LightgcnProblem, edge_bytes: int, products: int, arrays: int, value_bytes: int) -> Traffic:
    """`products` of all edges, and `arrays` passes over the dense table."""
    row = problem.case.dim * value_bytes
    entries = 2 * problem.graph.edges
    return Traffic(
        gather=products * entries * row,
        line=inputs.dense_line(row),
        table=problem.graph.nodes * row,
        stream=products * entries * edge_bytes + arrays * problem.graph.nodes * problem.case.dim * inputs.FLOAT,
    )


@provider("lightgcn_step", OURS, devices=ANYWHERE)
def lightgcn_step(problem: LightgcnProblem) -> Trial:
    return _lightgcn_step(problem, problem.table, problem.optimizer)


@provider("lightgcn_step", f"{OURS}[triton]", devices=CUDA)
def lightgcn_step_triton(problem: LightgcnProblem) -> Trial:
    """On a table of its own: the other one has been trained."""
    own = inputs.pack_table(problem.initial, problem.initial != 0, problem.case.kind)
    table = inputs.on_backend(own, "triton")
    return _lightgcn_step(problem, table, Adam(table, lr=LR))


def _lightgcn_step(problem: LightgcnProblem, table: PackedTable, optimizer: Adam) -> Trial:
    graph, batch = problem.graph, problem.case.batch
    start = table.values.clone()
    hidden = torch.bfloat16 if problem.case.dtype == "bfloat16" else torch.float32

    def step(number: int, count: int) -> Tensor:
        options: dict[str, Any] = {"layers": LAYERS, "batch_size": batch, "l2": L2, "hidden": hidden}
        return ops.lightgcn_step_(table, optimizer, graph, *problem.batch(number, count), **options)

    def answer(steps: int) -> tuple[Tensor, Tensor, bool]:
        table.values.copy_(start)
        for state in optimizer.state_dict().values():
            state.zero_()
        losses = torch.cat([step(number, 1) for number in range(steps)])
        return losses, ops.lookup(table, problem.check_rows).detach(), True

    # Two of the six products touch the rows of the mini-batch alone and are not counted.
    traffic = _step_traffic(problem, graph.neighbours.element_size(), 2 * LAYERS - 2, 4, hidden.itemsize)
    held = table.nbytes()["total"] + optimizer.nbytes() + graph.nbytes()
    held += 2 * graph.nodes * problem.case.dim * hidden.itemsize
    return Trial(
        lambda number: step(number, CHUNK),
        answer,
        Traffic(CHUNK * traffic.gather, traffic.line, traffic.table, CHUNK * traffic.stream),
        held,
        batch * CHUNK,
        steps=CHUNK,
        backend=table.backend,
        note=f"kept weights; {CHUNK} mini-batches a call",
        dtype=problem.case.dtype,
    )


def _torch_step(
    problem: LightgcnProblem, product: Callable[[Tensor], Tensor], edge_bytes: int, **options: Any
) -> Trial:
    weight = problem.weight
    optimizer = torch.optim.Adam([weight], lr=LR, **options)

    def step(number: int) -> Tensor:
        layer = mean = weight
        for _ in range(LAYERS):
            layer = product(layer)
            mean = mean + layer
        ranking, loss = problem.loss(weight, mean / (LAYERS + 1), number)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return ranking.detach()

    def answer(steps: int) -> tuple[Tensor, Tensor, bool]:
        with torch.no_grad():
            weight.copy_(problem.initial)
        optimizer.state.clear()
        losses = torch.stack([step(number) for number in range(steps)])
        return losses, weight.detach()[problem.check_rows].clone(), False

    held = 2 * problem.graph.edges * edge_bytes + 4 * memory.nbytes(weight)
    traffic = _step_traffic(problem, edge_bytes, 2 * LAYERS, 24, inputs.FLOAT)
    return Trial(step, answer, traffic, held, problem.case.batch, note="all slots")


class Symmetric(torch.autograd.Function):
    """A product whose backward is itself: torch would transpose the matrix in each step."""

    @staticmethod
    def forward(context: Any, matrix: Tensor, x: Tensor) -> Tensor:
        context.matrix = matrix
        return matrix @ x

    @staticmethod
    def backward(context: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, context.matrix @ grads[0]


@provider("lightgcn_step", "torch.sparse_csr, symmetric, Adam(fused)", devices=ANYWHERE)
def lightgcn_csr(problem: LightgcnProblem) -> Trial:
    """The best that torch can be made to do."""
    matrix = problem.csr
    return _torch_step(problem, lambda x: Symmetric.apply(matrix, x), INDEX64 + inputs.FLOAT, fused=True)


@provider("lightgcn_step", "torch.sparse_coo, Adam", devices=ANYWHERE)
def lightgcn_coo(problem: LightgcnProblem) -> Trial:
    """As LightGCN-PyTorch propagates and updates."""
    matrix = problem.csr.to_sparse_coo().coalesce()
    return _torch_step(problem, lambda x: torch.sparse.mm(matrix, x), 2 * INDEX64 + inputs.FLOAT)
