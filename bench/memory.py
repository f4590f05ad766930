"""Memory of a benchmark run: huge pages for big arrays, a heap that is not given back, and peak resident bytes."""

from __future__ import annotations

import ctypes
import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsparse import _native
from recsparse.table import advise_huge_pages

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_LARGE = 32 << 20


def _libc() -> Any:
    try:
        return ctypes.CDLL("libc.so.6")
    except OSError:
        return None


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An uninitialised tensor whose pages the kernel may make huge, as a packed table's are.

    Random access to a table of gigabytes is bound by address translation with 4 KiB pages; giving huge pages to one
    side only would measure the page size.
    """
    _native.load()
    if math.prod(shape) * dtype.itemsize >= _LARGE:
        # Reused heap pages would keep the small size that they have.
        release()
    tensor = torch.empty(*shape, dtype=dtype)
    advise_huge_pages(tensor)
    return tensor


def copied(tensor: Tensor) -> Tensor:
    """The same values in a tensor made by `empty`."""
    return empty(*tensor.shape, dtype=tensor.dtype).copy_(tensor)


def keep_freed_memory() -> bool:
    """Let malloc reuse freed blocks instead of returning them to the kernel; False where it cannot be asked.

    Providers that allocate their result in each call would otherwise be timed on page faults, which a serving process
    with a caching allocator does not have. This favours the peers that cannot write into a given buffer.
    """
    libc = _libc()
    if libc is None or not hasattr(libc, "mallopt"):
        return False
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))


def release() -> None:
    """Collect garbage and give free heap pages, and cached memory of a GPU, back."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    libc = _libc()
    if libc is not None and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _status(field: str) -> int | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def peak_growth(call: Callable[[], Any]) -> int | None:
    """Bytes by which the memory in use rises at its peak during ``call()``: of torch's default device if that is a GPU,
    else of the process; None where Linux does not tell."""
    release()
    if torch.get_default_device().type == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status("VmRSS")
    call()
    after = _status("VmHWM")
    return None if before is None or after is None else max(0, after - before)


def nbytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
