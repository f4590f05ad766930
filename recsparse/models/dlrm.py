"""A small DLRM-style click model (Naumov et al., arXiv 1906.00091) around any embedding modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class DLRM(nn.Module):
    """Bottom MLP of the dense features, one embedding a categorical feature, dot products of all pairs, top MLP.

    Args:
        embeddings: a module a feature, ids [B] -> rows [B, dim]: `nn.Embedding` or `SparseEmbedding`.
        dense_features: number of dense features.
        dim: columns of the embeddings.
        hidden: width of the hidden layer of both MLPs.
    """

    pairs: Tensor

    def __init__(self, embeddings: Iterable[nn.Module], dense_features: int, dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(embeddings)
        vectors = 1 + len(self.embeddings)
        self.bottom = _mlp(dense_features, hidden, dim)
        self.top = _mlp(dim + vectors * (vectors - 1) // 2, hidden, 1)
        self.register_buffer("pairs", torch.tril_indices(vectors, vectors, -1), persistent=False)

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        """Logits [B] from `dense` float32 [B, dense_features] and `ids` int64 [features, B]."""
        rows = [embedding(column) for embedding, column in zip(self.embeddings, ids.unbind(), strict=True)]
        return self.score(dense, rows)

    def score(self, dense: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """Logits [B] from the rows of the features, each [B, dim]."""
        bottom = self.bottom(dense)
        dots = _PairDots.apply(torch.stack([bottom, *rows], dim=1), self.pairs)
        return self.top(torch.cat([bottom, dots], dim=1))[:, 0]


class _PairDots(torch.autograd.Function):
    """Dot products of pairs of vectors: [B, n, dim] and int64 [2, p] -> [B, p].

    The matrix of dots is symmetric, so the backward needs one product with the vectors. Autograd would take one for
    each side of `bmm`, the second of them transposed: three times the time, as long as all else in a step.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, pairs: Tensor) -> Tensor:
        ctx.save_for_backward(vectors, pairs)
        count = vectors.shape[1]
        dots = torch.bmm(vectors, vectors.transpose(1, 2))
        return dots.flatten(1).index_select(1, pairs[0] * count + pairs[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        vectors, pairs = ctx.saved_tensors
        batch, count, _ = vectors.shape
        both = grad.new_zeros(batch, count * count)
        for first, second in (pairs, pairs.flip(0)):
            both.index_add_(1, first * count + second, grad)
        return torch.bmm(both.view(batch, count, count), vectors), None


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
