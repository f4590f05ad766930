"""What a result was measured on: machine, versions, git."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("recsparse", "numpy", "scipy", "fbgemm-gpu-cpu", "numba", "implicit", "faiss-cpu", "torch_geometric")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _cpu_model() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cpus() -> int:
    """Logical CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def last_level_cache(device: str = "cpu") -> int:
    """Bytes of the largest cache of CPU 0, 32 MiB where the system does not tell; or of the L2 cache of the GPU."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties().L2_cache_size)
    sizes = []
    for index in range(8):
        text = _read(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size")
        if text and text[-1] in "KM":
            sizes.append(int(text[:-1]) << (10 if text[-1] == "K" else 20))
    return max(sizes, default=32 << 20)


def describe() -> dict[str, Any]:
    """The machine, as a flat JSON object."""
    memory = (_read("/proc/meminfo") or "").split()
    huge = _read("/sys/kernel/mm/transparent_hugepage/enabled") or ""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_model(),
        "gpu": gpu,
        "isa": torch.backends.cpu.get_cpu_capability(),
        "recsparse_isa": torch.ops.recsparse.cpu_isa(),
        "cpus": cpus(),
        "llc_bytes": last_level_cache(),
        "memory_bytes": int(memory[1]) * 1024 if len(memory) > 1 else None,
        "huge_pages": huge[huge.find("[") + 1 : huge.find("]")] if "[" in huge else None,
        "os": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Versions of Python, torch and the packages that take part."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def git() -> str | None:
    """Commit of the working tree that holds this file, with ``-dirty`` if it has changes; None outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
