"""Propagation over the interaction graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsparse import _native
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices

if TYPE_CHECKING:
    from recsparse.graph import Graph

_native.load()


def spmm(graph: Graph, x: Tensor, *, backend: str = "cpu") -> Tensor:
    """D^-1/2 A D^-1/2 x: one layer of LightGCN (He et al., arXiv 2002.02126, equation 3).

    Differentiable with respect to `x`: the matrix equals its transpose, so the gradient is the same op. Sums are
    float32 whatever the dtype of `x`, in an order that depends on the graph alone: the same bits for any number of
    threads.

    Args:
        graph: the interaction graph.
        x: float32, float16 or bfloat16 [nodes, d], any d, contiguous.
        backend: a resolved one (`recsparse.backend.resolve_backend`).

    Returns:
        [nodes, d] of the dtype of `x`.

    Raises:
        TypeError, ValueError: wrong dtype, device, layout or shape.
    """
    result: Tensor = implementation(backend).spmm(*graph.tensors, x)
    return result


@torch.library.register_fake("recsparse::spmm")
def _(
    offsets: Tensor, neighbours: Tensor, node: Tensor, slot: Tensor, scale: Tensor, chunks: Tensor, x: Tensor
) -> Tensor:
    check_devices("spmm", x, offsets=offsets, neighbours=neighbours, node=node, slot=slot, scale=scale, chunks=chunks)
    return torch.empty_like(x)
