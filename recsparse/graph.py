"""The interaction graph that LightGCN propagates over: built once from train interactions, shared by all ops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsparse import _host
from recsparse.data import Interactions


@dataclass(frozen=True)
class Graph:
    """A bipartite graph in symmetric CSR form without values; users are nodes 0..U-1, items nodes U..U+I-1.

    Its matrix is D^-1/2 A D^-1/2. Rows are stored in *slots*: an order in which rows that share neighbours are worked
    on one after the other, so that the neighbours stay in the cache. Ops take and return tensors by node id; the order
    shows nowhere else (`csrc/core/graph.h`).

    Attributes:
        n_users, n_items: sizes of the two sides.
        offsets: int64 [nodes + 1], by slot.
        neighbours: int32 (int64 from 2^31 nodes on) [2 x edges], node ids, ascending in each row.
        node, slot: of their dtype [nodes], node of a slot and slot of a node.
        scale: float32 [nodes], 1 / sqrt(degree), 0 for a node without neighbours.
        chunks: int64, slots of about equal work; those before the first are rows so long that they are cut.
    """

    n_users: int
    n_items: int
    offsets: Tensor
    neighbours: Tensor
    node: Tensor
    slot: Tensor
    scale: Tensor
    chunks: Tensor

    @classmethod
    def from_interactions(cls, train: Interactions, n_items: int, *, wide: bool | None = None) -> Graph:
        """Build from the CSR matrix of train interactions; peak memory is less than twice an edge list of 8 bytes an
        edge, and some bytes a node.

        Args:
            train: users x items; the columns of each row ascend and are unique.
            n_items: number of items.
            wide: int64 node ids; default: where int32 cannot hold them.

        Raises:
            DataError: the matrix is inconsistent.
        """
        if wide is None:
            wide = train.n_users + n_items > np.iinfo(np.int32).max
        arrays = _host.build_graph(train.indptr, train.items, n_items, wide)
        return cls(train.n_users, n_items, *(torch.from_numpy(array) for array in arrays))

    def to(self, device: str | torch.device) -> Graph:
        """The same graph on a device; itself where it lies there already."""
        moved = tuple(tensor.to(device) for tensor in self.tensors)
        return self if moved[0] is self.offsets else Graph(self.n_users, self.n_items, *moved)

    @property
    def nodes(self) -> int:
        return self.n_users + self.n_items

    @property
    def edges(self) -> int:
        """Interactions; each is stored in both directions."""
        return self.neighbours.numel() // 2

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The graph as native ops take it."""
        return self.offsets, self.neighbours, self.node, self.slot, self.scale, self.chunks

    def nbytes(self) -> int:
        """Exact bytes held."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def to_sparse_csr(self) -> Tensor:
        """The same matrix as a torch sparse CSR tensor, float32 [nodes, nodes], rows by node id (a copy)."""
        degrees = self.offsets.diff()
        rows = torch.repeat_interleave(self.node.long(), degrees)
        order = torch.argsort(rows, stable=True)
        cols = self.neighbours.long()[order]
        crow = degrees.new_zeros(self.nodes + 1)
        torch.cumsum(degrees[self.slot.long()], 0, out=crow[1:])
        values = self.scale[rows[order]] * self.scale[cols]
        return torch.sparse_csr_tensor(crow, cols, values, (self.nodes, self.nodes), check_invariants=False)
