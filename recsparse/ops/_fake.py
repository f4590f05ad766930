"""What the fake kernels share."""

from __future__ import annotations

from torch import Tensor


def check_devices(op: str, first: Tensor, **others: Tensor) -> None:
    """All tensors of a call lie on one device.

    One meta tensor is enough for the dispatcher to run the fake kernel: without this check a table on the CPU would
    answer meta ids with memory that nobody has written.

    Raises:
        ValueError: names the first tensor that lies elsewhere.
    """
    for name, tensor in others.items():
        if tensor.device != first.device:
            raise ValueError(f"{op}: {name} is on {tensor.device}, expected {first.device}")
