"""The implementation of an op for a backend."""

from __future__ import annotations

from typing import Any

import torch

from recsparse import reference
from recsparse.errors import BackendError


class _Triton:
    """The ops of `recsparse.triton_kernels`, imported here: it needs triton, which `resolve_backend` has looked for."""

    def __getattr__(self, op: str) -> Any:
        from recsparse import triton_kernels  # type: ignore[attr-defined]

        if not hasattr(triton_kernels, op):
            raise BackendError(f"{op}: backend triton has no kernel for it; use backend cuda, or move it to a CPU")
        return getattr(triton_kernels, op)


def implementation(backend: str) -> Any:
    """What has the ops of `backend` (a resolved one) as attributes; each takes the arguments of the op's schema.

    `cpu` and `cuda` are the same native ops: torch's dispatcher chooses by the device of the tensors.
    """
    if backend == "reference":
        return reference
    if backend == "triton":
        return _Triton()
    return torch.ops.recsparse
