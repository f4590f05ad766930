"""A small DLRM-style click model (Naumov et al., arXiv 1906.00091) around any embedding modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


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
        vectors = torch.stack([bottom, *rows], dim=1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))
        return self.top(torch.cat([bottom, dots[:, self.pairs[0], self.pairs[1]]], dim=1))[:, 0]


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
