"""Recommender models over a packed table."""

from __future__ import annotations

from recsparse.models.mf import MatrixFactorisation, Triples

__all__ = ["MatrixFactorisation", "Triples"]
