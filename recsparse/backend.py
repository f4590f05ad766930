"""Which implementation serves a table. Decided once, when the table is made; an explicit request never falls back."""

from __future__ import annotations

import importlib.util
import os
from typing import NamedTuple

import torch

from recsparse import _native
from recsparse.errors import BackendError

BACKENDS = ("auto", "cuda", "triton", "cpu", "reference")


class Missing(NamedTuple):
    """Why a backend cannot serve, and what to do about it."""

    reason: str
    fix: str


def missing(backend: str, device: str) -> Missing | None:
    """What keeps `backend` (one that is not `auto`) from serving tensors on devices of type `device`; None: nothing."""
    if backend == "cuda":
        return _cuda_missing() or _wrong_device(device, "cuda")
    if backend == "triton":
        return _triton_missing(device)
    return _wrong_device(device, "cpu")


def resolve_backend(request: str, device: str = "cpu") -> str:
    """The backend for a request and the type of the device that the tensors lie on.

    `auto` takes the native kernels of the device, and on a GPU those of Triton where the native ones are missing. Every
    other name is taken at its word.

    Raises:
        ValueError: no such backend.
        BackendError: the backend cannot serve; the message says why.
    """
    if request not in BACKENDS:
        raise ValueError(f"backend is {request!r}, expected one of {', '.join(BACKENDS)}")
    _native.load()
    names = (request,) if request != "auto" else ("cpu",) if device == "cpu" else ("cuda", "triton")
    reasons = []
    for name in names:
        found = missing(name, device)
        if found is None:
            return name
        reasons.append(f"backend {name}: {found.reason}; {found.fix}")
    raise BackendError("; ".join(reasons))


def _wrong_device(device: str, expected: str) -> Missing | None:
    if device == expected:
        return None
    return Missing(f"the tensors are on {device}, expected {expected}", "move them or choose another backend")


def _cuda_missing() -> Missing | None:
    if torch.version.cuda is None:
        return Missing("torch is a CPU build", "install a CUDA build of torch, then `make build`")
    if not torch.cuda.is_available():
        return Missing("torch sees no NVIDIA GPU", "check the driver with `nvidia-smi`")
    try:
        _native.load()
    except BackendError:
        return Missing("the extension is missing", "make build")
    if not torch._C._dispatch_has_kernel_for_dispatch_key("recsparse::lookup", "CUDA"):
        major = torch.version.cuda.split(".")[0]
        return Missing(
            "the extension was built without CUDA", f"install nvcc {major}.x and `RECSPARSE_CUDA=1 make build`"
        )
    return None


def _triton_missing(device: str) -> Missing | None:
    if importlib.util.find_spec("triton") is None:
        return Missing("triton is not installed", "pip install triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if not torch.cuda.is_available():
        return Missing("no GPU", "TRITON_INTERPRET=1 runs it slowly on the CPU")
    return _wrong_device(device, "cuda")
