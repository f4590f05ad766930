"""Recommender models over packed tables."""

from __future__ import annotations

from recsparse.config import Config
from recsparse.data import Dataset, StreamedDataset
from recsparse.errors import UserError
from recsparse.graph import Graph
from recsparse.models.base import Model, Triples
from recsparse.models.dlrm import DLRM
from recsparse.models.lightgcn import LightGCN
from recsparse.models.mf import MatrixFactorisation
from recsparse.table import DTYPES

__all__ = ["DLRM", "LightGCN", "MatrixFactorisation", "Model", "Triples", "build"]


def build(config: Config, dataset: Dataset | StreamedDataset) -> Model:
    """The model that `config.model` names, for the users and items of `dataset`."""
    options = config.model
    if options.name == "lightgcn":
        if isinstance(dataset, StreamedDataset):
            raise UserError(f"model.name lightgcn needs all interactions, but {dataset.name} is streamed; use mf")
        graph = Graph.from_interactions(dataset.train, dataset.n_items)
        return LightGCN(graph, config.optim.l2, options.layers, DTYPES[options.hidden])
    return MatrixFactorisation(dataset.n_users, dataset.n_items, config.optim.l2)
