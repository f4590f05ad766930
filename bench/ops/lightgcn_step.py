"""Mini-batches of LightGCN: ``ops.lightgcn_step_`` on a packed table against sparse products, autograd and Adam on the
dense one."""

from __future__ import annotations

import math
import warnings
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recsparse.optim import Adam
from recsparse.table import PackedTable

from .. import graphs, inputs, memory
from ..registry import Case, Trial, register_op

LAYERS = 3
L2 = 1e-4
LR = 1e-3
CHUNK = 8  # mini-batches of a call of ours
CHECK_STEPS = 2
CHECK_ROWS = 4096
SCALE = 0.1


class LightgcnProblem:
    """One graph, one table, dense and packed, and mini-batches. All peers share one dense weight."""

    def __init__(self, case: Case, providers: int) -> None:
        self.graph = graphs.load(case.graph)
        self.case = case
        self.sized = Case(rows=self.graph.nodes, dim=case.dim, density=case.density, kind=case.kind)
        self.initial = inputs.masked_dense(self.sized, scale=SCALE)
        self.n_sets = 24
        source = inputs.generator(2)
        count = self.n_sets * case.batch
        sides = (self.graph.n_users, self.graph.n_items, self.graph.n_items)
        self.triples = tuple(inputs.draw_ids(count, side, "uniform", source) for side in sides)
        self.check_rows = torch.randint(self.graph.nodes, (CHECK_ROWS,), generator=inputs.generator(3))

    @cached_property
    def table(self) -> PackedTable:
        return inputs.pack_table(self.initial, self.initial != 0, self.case.kind)

    @cached_property
    def optimizer(self) -> Adam:
        return Adam(self.table, lr=LR)

    @cached_property
    def weight(self) -> torch.nn.Parameter:
        return torch.nn.Parameter(memory.empty(*self.initial.shape).copy_(self.initial))

    @cached_property
    def csr(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Sparse CSR tensor support is in beta state"
            return self.graph.to_sparse_csr()

    def batch(self, number: int, count: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Mini-batches `number` .. `number` + `count`, going round."""
        size = self.case.batch
        begin = number % (self.n_sets - count + 1) * size
        users, pos, neg = (ids[begin : begin + count * size] for ids in self.triples)
        return users, pos, neg

    def loss(self, weight: Tensor, mean: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """(softplus part, whole loss) from layer 0 and the mean of the layers."""
        users, pos, neg = self.batch(number)
        rows = users, self.graph.n_users + pos, self.graph.n_users + neg
        u, i, j = (mean[each] for each in rows)
        ranking = softplus((u * j).sum(1) - (u * i).sum(1)).mean()
        squares = sum(weight[each].square().sum() for each in rows)
        return ranking, ranking + L2 / (2 * len(users)) * squares

    @cached_property
    def _expected(self) -> dict[bool, tuple[Tensor, Tensor]]:
        return {masked: self._train(masked) for masked in (False, True)}

    def expected(self, masked: bool) -> tuple[Tensor, Tensor]:
        """(losses, check rows) of the first steps, in float64; `masked` trains the kept weights alone."""
        return self._expected[masked]

    def _train(self, masked: bool) -> tuple[Tensor, Tensor]:
        matrix = torch.sparse_csr_tensor(
            self.csr.crow_indices(), self.csr.col_indices(), self.csr.values().double(), self.csr.shape
        )
        weight = torch.nn.Parameter(self.initial.double())
        mask = (self.initial != 0).double() if masked else torch.ones_like(weight)
        optimizer, losses = torch.optim.Adam([weight], lr=LR), []
        for number in range(CHECK_STEPS):
            layer = mean = weight * mask
            for _ in range(LAYERS):
                layer = matrix @ layer
                mean = mean + layer
            ranking, loss = self.loss(weight * mask, mean / (LAYERS + 1), number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(ranking.detach())
        return torch.stack(losses), weight.detach()[self.check_rows]


class LightgcnStep:
    name = "lightgcn_step"
    unit = "samples"
    shown = ("graph", "dim", "density", "kind", "batch", "dtype")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        graph, batch = ("small", 64) if quick else ("yelp2018-like", 2048)
        sparse = [Case(graph=graph, dim=64, density=0.1, batch=batch, dtype=each) for each in ("float32", "bfloat16")]
        return [Case(graph=graph, dim=64, density=1.0, batch=batch, kind="full"), *sparse]

    def problem(self, case: Case, providers: int) -> LightgcnProblem:
        return LightgcnProblem(case, providers)

    def check(self, problem: LightgcnProblem, trial: Trial) -> str | None:
        """Losses to 1e-4, and weights to a tenth of a step of Adam, which has the size of the learning rate however
        small a gradient is: so in all but one of a hundred places."""
        losses, rows, masked = trial.answer(CHECK_STEPS)
        want_losses, want_rows = problem.expected(masked)
        loose = problem.case.dtype != "float32" and trial.dtype != "float32"
        error = float((losses.double() - want_losses).abs().max())
        if math.isnan(error) or error > (1e-2 if loose else 1e-4):
            return f"a loss differs by {error:.2e}"
        wrong = float(((rows.double() - want_rows).abs() > 0.1 * LR).double().mean())
        if wrong > (0.2 if loose else 0.01):
            return f"{100 * wrong:.1f} % of the weights differ by more than a tenth of a step"
        return None


register_op(LightgcnStep())
