"""Memory of a benchmark run: huge pages for big arrays, a heap that is not given back, and peak resident bytes."""

from __future__ import annotations

import ctypes
import gc
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MADV_HUGEPAGE = 14
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def _libc() -> Any:
    try:
        libc = ctypes.CDLL("libc.so.6", use_errno=True)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        return libc
    except (OSError, AttributeError):
        return None


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An uninitialised tensor whose pages the kernel may make huge, as a packed table's are.

    Random access to a table of gigabytes is bound by address translation with 4 KiB pages; giving huge pages to one
    side only would measure the page size.
    """
    tensor = torch.empty(*shape, dtype=dtype)
    huge = 2 << 20
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (tensor.data_ptr() + tensor.numel() * tensor.element_size() - start) // mmap.PAGESIZE * mmap.PAGESIZE
    libc = _libc()
    if libc is not None and length >= huge:
        libc.madvise(start, length, _MADV_HUGEPAGE)
    return tensor


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
    """Collect garbage and give free heap pages back to the kernel."""
    gc.collect()
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
    """Bytes by which the peak resident set of the process rises during ``call()``; None where Linux does not tell."""
    release()
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
