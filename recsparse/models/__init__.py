"""Recommender models over packed tables."""

from __future__ import annotations

from recsparse.models.dlrm import DLRM
from recsparse.models.mf import MatrixFactorisation, Triples

__all__ = ["DLRM", "MatrixFactorisation", "Triples"]
