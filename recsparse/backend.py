"""Which implementation serves a table. Decided once, when the table is made; an explicit request never falls back."""

from __future__ import annotations

from recsparse import _native
from recsparse.errors import BackendError

BACKENDS = ("auto", "cuda", "triton", "cpu", "reference")


def resolve_backend(request: str) -> str:
    """The backend for a request: `auto` takes the native CPU kernels, every other name is taken at its word.

    Raises:
        ValueError: no such backend.
        BackendError: the backend cannot serve; the message says why.
    """
    if request not in BACKENDS:
        raise ValueError(f"backend is {request!r}, expected one of {', '.join(BACKENDS)}")
    if request in ("cuda", "triton"):
        raise BackendError(f"backend {request}: this release has kernels for cpu and reference only")
    _native.load()
    return "cpu" if request == "auto" else request
