"""Reference of `soft_threshold`: the formula, and autograd for its gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_threshold(values: Tensor, thresholds: Tensor, ids: Tensor | None = None) -> Tensor:
    """[n, dim]; see `recsparse.ops.soft_threshold`. Differentiable."""
    if ids is not None:
        values = values[ids]
        thresholds = thresholds[ids] if len(thresholds) > 1 else thresholds
    return values.sign() * (values.abs() - thresholds.sigmoid()).relu()


def soft_threshold_backward(
    grad: Tensor, values: Tensor, thresholds: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows; see `recsparse.ops.soft_threshold_backward`."""
    own = values if ids is None else values[ids]
    shared = thresholds if ids is None or len(thresholds) == 1 else thresholds[ids]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (own, shared)]
    with torch.enable_grad():
        out = soft_threshold(*leaves)
    first, second = torch.autograd.grad(out, leaves, grad)
    return first, second
