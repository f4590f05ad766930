"""Mistakes that GPU kernels have found in their arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import _native

_native.load()


def raise_device_errors(tensor: Tensor) -> None:
    """Raise, or warn of, the earliest mistake that native kernels have met on the tensor's GPU since the last call.

    A kernel cannot raise, and nobody waits for it: it takes note of a bad id, and goes on with row 0 (`lookup`) or does
    nothing (`bpr_step_`, `lightgcn_step_`, the optimisers). This function waits for the device, so call it where a
    program waits anyway: once a logging interval, not once a step. `select`, `prune_regrow_` and the growth scores,
    which wait, the trainer and evaluation call it themselves. On the CPU, where ops raise at once, it does nothing.

    Raises:
        IndexError, ValueError: names the op, the argument, the place and what was expected.
    """
    # The dispatcher knows whether there are native kernels for the GPU at all; those of Triton check for themselves.
    if tensor.is_cuda and torch._C._dispatch_has_kernel_for_dispatch_key("recsparse::raise_device_errors", "CUDA"):
        torch.ops.recsparse.raise_device_errors(tensor)
