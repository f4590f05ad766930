"""Interaction graphs for the benchmarks: a folder of real data, or a generated one of published counts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch

from recsparse import _host
from recsparse.data import Interactions, load_folder
from recsparse.errors import UserError
from recsparse.graph import Graph

# (users, items, interactions, least and most interactions of a user), generated with a power law of items. The counts
# are those of the LightGCN splits (He et al., SIGIR 2020).
GENERATED = {
    "yelp2018-like": (31_668, 38_048, 1_237_259, 10, 150),
    "gowalla-like": (29_858, 40_981, 810_128, 6, 100),
    "small": (300, 200, 3_000, 3, 20),
}


def parse(text: str) -> str:
    """A name in `GENERATED`, or a folder with train.txt, made absolute.

    Raises:
        UserError: neither.
    """
    if text in GENERATED:
        return text
    if not (Path(text) / "train.txt").is_file():
        raise UserError(f"--graph: {text!r} is no folder with train.txt; expected one, or {', '.join(GENERATED)}")
    return str(Path(text).resolve())


@lru_cache(maxsize=1)
def load(name: str) -> Graph:
    """The graph that `parse` let pass, on the default device."""
    if name in GENERATED:
        users, items, pairs, least, most = GENERATED[name]
        indptr, columns = _host.materialise_synthetic(users, items, least, most, 1, pairs)
        graph = Graph.from_interactions(Interactions(indptr, columns), items)
    else:
        data = load_folder(name, protocol="paper")
        graph = Graph.from_interactions(data.train, data.n_items)
    return graph.to(torch.get_default_device())
