"""The implementation of an op for a backend."""

from __future__ import annotations

from typing import Any

import torch

from recsparse import reference


def implementation(backend: str) -> Any:
    """What has the ops of `backend` (a resolved one) as attributes; each takes the arguments of the op's schema.

    `cpu` and `cuda` are the same native ops: torch's dispatcher chooses by the device of the tensors.
    """
    if backend == "reference":
        return reference
    if backend == "triton":
        # Needs triton, which `resolve_backend` has looked for.
        from recsparse import triton_kernels  # type: ignore[attr-defined]

        return triton_kernels
    return torch.ops.recsparse
