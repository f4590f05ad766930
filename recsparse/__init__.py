"""Embedding tables that keep, train and store only some of their weights."""

from __future__ import annotations

from recsparse.errors import BackendError, InvariantError, RecsparseError, UserError

__version__ = "0.1.0"

__all__ = ["BackendError", "InvariantError", "RecsparseError", "UserError", "__version__"]
