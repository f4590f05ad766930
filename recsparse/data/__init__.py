"""Interaction data: reading, splitting, generating and sampling."""

from __future__ import annotations

from recsparse.data.dataset import Dataset, Interactions, load_folder

__all__ = ["Dataset", "Interactions", "load_folder"]
