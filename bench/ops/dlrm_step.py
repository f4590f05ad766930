"""A whole training step of a small DLRM-style model: forward, backward, update of the tables and of the MLPs.

Peers train the touched rows of dense tables, ours only their kept weights; each is checked against its own formula. The
MLPs are trained by the same Adam in all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from recsparse.models import DLRM

from .. import inputs
from ..registry import Case, Trial, register_op

FEATURES, DENSE = 8, 13
CHECK_STEPS = 3
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


class DlrmProblem:
    """Joint dense weight of all features, and sets of (dense features, ids [features, batch], clicks)."""

    def __init__(self, case: Case, providers: int) -> None:
        self.case = case
        self.rows = case.rows // FEATURES
        self.initial = inputs.masked_dense(case, scale=0.1)
        count = case.batch * FEATURES
        self.n_sets = inputs.count_sets(case, providers, count * 8, count * case.dim * 4)
        source = inputs.generator(2)
        self.ids = [inputs.draw_ids(count, self.rows, case.ids, source).view(FEATURES, -1) for _ in range(self.n_sets)]
        self.dense = [torch.randn(case.batch, DENSE, generator=source) for _ in range(self.n_sets)]
        self.clicked = [torch.randint(0, 2, (case.batch,), generator=source).float() for _ in range(self.n_sets)]

    def weight(self, feature: int) -> Tensor:
        """Initial dense weight of a feature, [rows, dim], a view."""
        return self.initial[feature * self.rows : (feature + 1) * self.rows]

    def model(self, embeddings: list[torch.nn.Module]) -> tuple[DLRM, torch.optim.Optimizer]:
        """The model around the embeddings, and Adam for its MLPs; they start alike each time."""
        torch.manual_seed(0)
        model = DLRM(embeddings, DENSE, self.case.dim)
        mlps = [*model.bottom.parameters(), *model.top.parameters()]
        return model, torch.optim.Adam(mlps, lr=LR, betas=(BETA1, BETA2), eps=EPS, fused=True)

    def loss(self, model: DLRM, number: int) -> Tensor:
        return binary_cross_entropy_with_logits(model(self.dense[number], self.ids[number]), self.clicked[number])

    def expected(self, masked: bool) -> list[float]:
        """Losses of the first steps, in float64, from the touched rows alone."""
        offset = torch.arange(FEATURES)[:, None] * self.rows
        rows = [(self.ids[number] + offset).view(-1) for number in range(CHECK_STEPS)]
        touched = torch.cat(rows).unique()
        w = self.initial[touched].double()
        mask = (w != 0).double() if masked else torch.ones_like(w)
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        model, _ = self.model([torch.nn.Identity() for _ in range(FEATURES)])
        model.double()
        mlps = torch.optim.Adam(model.parameters(), lr=LR, betas=(BETA1, BETA2), eps=EPS)
        losses = []
        for step in range(1, CHECK_STEPS + 1):
            place = torch.searchsorted(touched, rows[step - 1])
            leaf = w.clone().requires_grad_()
            found = leaf[place].view(FEATURES, -1, self.case.dim).unbind()
            logits = model.score(self.dense[step - 1].double(), found)
            loss = binary_cross_entropy_with_logits(logits, self.clicked[step - 1].double())
            mlps.zero_grad()
            loss.backward()
            mlps.step()
            assert leaf.grad is not None
            gradient = leaf.grad * mask
            moved = torch.zeros(len(w), 1, dtype=torch.bool)
            moved[place] = True
            m = torch.where(moved, BETA1 * m + (1 - BETA1) * gradient, m)
            v = torch.where(moved, BETA2 * v + (1 - BETA2) * gradient.square(), v)
            size = LR * math.sqrt(1 - BETA2**step) / (1 - BETA1**step)
            w = w - torch.where(moved, size * m / (v.sqrt() + EPS), 0.0) * mask
            losses.append(float(loss.detach()))
        return losses


class DlrmStep:
    name = "dlrm_step"
    unit = "clicks"
    shown = ("rows", "dim", "density", "kind", "batch", "ids", "cold")

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        if quick:
            return [Case(rows=4000, dim=16, density=0.2, batch=64)]
        return [Case(rows=4_000_000, dim=64, density=0.1, batch=2048)]

    def problem(self, case: Case, providers: int) -> DlrmProblem:
        return DlrmProblem(case, providers)

    def check(self, problem: DlrmProblem, trial: Trial) -> str | None:
        losses, masked = trial.answer(CHECK_STEPS)
        want = problem.expected(masked)
        if len(losses) != len(want) or any(abs(a - b) > 2e-6 for a, b in zip(losses, want, strict=True)):
            return f"losses of the first steps are {losses}, expected {want}"
        return None


register_op(DlrmStep())
