"""Interaction data: reading, splitting, generating, downloading and sampling."""

from __future__ import annotations

from recsparse.data.dataset import Dataset, Interactions, load_folder
from recsparse.data.presets import PRESETS, generate, stream, streamed
from recsparse.data.registry import REGISTRY, download
from recsparse.data.sampler import Sampler
from recsparse.data.split import parse_shares, split_folder
from recsparse.data.streamed import StreamedDataset
from recsparse.data.synthetic import SyntheticStream

__all__ = [
    "PRESETS",
    "REGISTRY",
    "Dataset",
    "Interactions",
    "Sampler",
    "StreamedDataset",
    "SyntheticStream",
    "download",
    "generate",
    "load_folder",
    "parse_shares",
    "split_folder",
    "stream",
    "streamed",
]
