"""LightGCN (He et al., SIGIR 2020, arXiv 2002.02126): dot products of rows averaged over layers of propagation."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import ops
from recsparse.backend import resolve_backend
from recsparse.graph import Graph
from recsparse.models.base import Model, Rows, Triples, bpr_gradients
from recsparse.optim import TableOptimizer
from recsparse.table import PackedTable


class LightGCN(Model):
    """BPR-trained LightGCN; the table is layer 0, and every mini-batch moves all kept weights.

    Args:
        graph: train interactions.
        l2: penalty on rows of layer 0.
        layers: K; the mean is over layers 0..K.
        hidden: type of the layers between, float32 or bfloat16.
    """

    def __init__(self, graph: Graph, l2: float, layers: int = 3, hidden: torch.dtype = torch.float32) -> None:
        super().__init__(graph.n_users, graph.n_items, l2)
        self.graph = graph
        self.layers = layers
        self.hidden = hidden

    def train_(self, table: PackedTable, optimizer: TableOptimizer, triples: Triples, batch_size: int) -> Tensor:
        return ops.lightgcn_step_(
            table,
            optimizer,
            self._graph_beside(table),
            *triples,
            layers=self.layers,
            batch_size=batch_size,
            l2=self.l2,
            hidden=self.hidden,
        )

    def train_rows_(self, rows: Rows, triples: Triples, batch_size: int) -> Tensor:
        """Holds a few dense arrays of [nodes, dim]: the layers, and the gradient of layer 0."""
        losses = []
        for batch in triples.batches(batch_size):
            ids = torch.cat([batch.users, batch.positives + self.n_users, batch.negatives + self.n_users])
            layer = rows.read(None)
            graph = self.graph = self.graph.to(layer.device)
            own = layer[ids]
            mean = self._mean_of_layers(graph, layer)
            loss, of_mean = bpr_gradients(mean[ids].view(3, len(batch), -1), 1 / len(batch))
            # The matrix equals its transpose: the gradient of layer 0 is the mean of the layers of that of the mean.
            grad = self._mean_of_layers(graph, ops.sum_rows(of_mean.view(len(ids), -1), ids, graph.nodes))
            grad += ops.sum_rows(own.mul_(self.l2 / len(batch)), ids, graph.nodes)
            rows.update(None, grad)
            losses.append(loss)
        return torch.stack(losses) if losses else torch.empty(0)

    def grow_scores(self, table: PackedTable, triples: Triples, limit: int) -> tuple[Tensor, Tensor]:
        return ops.lightgcn_grow_scores(
            table, self._graph_beside(table), *triples, layers=self.layers, limit=limit, hidden=self.hidden
        )

    def propagate(self, table: PackedTable) -> Tensor:
        """The mean of the layers, float32 [nodes, dim]: dense, however few weights the table keeps."""
        return self._mean_of_layers(self._graph_beside(table), table.to_dense().float(), table.backend)

    def _mean_of_layers(self, graph: Graph, layer: Tensor, backend: str = "auto") -> Tensor:
        mean, backend = layer.clone(), resolve_backend(backend, layer.device.type)
        for _ in range(self.layers):
            layer = ops.spmm(graph, layer, backend=backend)
            mean += layer
        return mean.div_(self.layers + 1)

    def for_ranking(self, table: PackedTable) -> tuple[Tensor, Tensor]:
        mean = self.propagate(table)
        return mean[: self.n_users], mean[self.n_users :]

    def _graph_beside(self, table: PackedTable) -> Graph:
        """The graph, which moves to the table's device on first use: a run's tables live on one."""
        self.graph = self.graph.to(table.values.device)
        return self.graph
