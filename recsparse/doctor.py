"""What this machine offers to recsparse: versions, instruction set, threads, and which backends load or why not."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from recsparse import __version__, _native
from recsparse.backend import missing
from recsparse.errors import BackendError

_ISA_FLAGS = {
    "avx512": (
        *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vbmi2", "avx512_vpopcntdq", "avx512_vnni"),
        *("bmi2", "fma"),
    ),
    "avx2": ("avx2", "fma", "bmi2", "f16c", "popcnt"),
}


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at, for example `backend cuda`.
        status: `ok`; `absent` for something optional that is not there; `broken` for something recsparse needs.
        value: what was found, or why not.
        fix: what to do about it; "" when there is nothing to do.
    """

    name: str
    status: str
    value: str
    fix: str = ""


def collect() -> list[Check]:
    """Look at everything once; takes a second or two and changes nothing."""
    native, native_check = _native_library()
    return [
        Check("recsparse", "ok", __version__),
        Check("python", "ok", platform.python_version()),
        Check(
            "torch", "ok", f"{torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU build'}"
        ),
        _versions("numpy"),
        _tool("g++", ["g++", "-dumpfullversion"], r"(\S+)", "install g++ 9 or later to build the extension"),
        _tool("nvcc", ["nvcc", "--version"], r"release (\S+),", "needed only to build the cuda backend"),
        _versions("triton", "needed only by the triton backend: `pip install triton`"),
        Check("processor", "ok", _processor()),
        _cpu_isa(native),
        Check(
            "threads",
            "ok",
            f"{torch.get_num_threads()} used by torch, {len(os.sched_getaffinity(0))} processors usable",
        ),
        native_check,
        Check("backend cpu", "ok", "ready")
        if native
        else Check("backend cpu", "broken", "the extension does not load", "see the line `extension`"),
        _cuda(),
        _triton(),
    ]


def run_doctor() -> int:
    """Print the report. Returns 0, or 1 when something that recsparse needs is broken."""
    checks = collect()
    table = Table(box=None, pad_edge=False, show_header=False)
    marks = {"ok": "[green]ok[/]", "absent": "[yellow]absent[/]", "broken": "[red]broken[/]"}
    for check in checks:
        text = check.value + (f"\n  -> {check.fix}" if check.fix else "")
        table.add_row(marks[check.status], check.name, text.replace("[", r"\["))
    Console().print(table)
    return 1 if any(check.status == "broken" for check in checks) else 0


def _versions(package: str, fix: str = "") -> Check:
    try:
        return Check(package, "ok", version(package))
    except PackageNotFoundError:
        return Check(package, "absent", "not installed", fix)


def _tool(name: str, command: list[str], pattern: str, fix: str) -> Check:
    path = shutil.which(command[0])
    if path is None:
        return Check(name, "absent", "not on PATH", fix)
    match = re.search(pattern, subprocess.run(command, capture_output=True, text=True).stdout)
    return Check(name, "ok", f"{match.group(1) if match else 'unknown version'} ({path})")


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.is_file() else ""
    match = re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE)
    return match.group(1) if match else ""


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _native_library() -> tuple[bool, Check]:
    try:
        _native.load()
    except BackendError as error:
        return False, Check("extension", "broken", str(error))
    return True, Check("extension", "ok", str(_native.LIBRARY))


def _cpu_isa(native: bool) -> Check:
    flags = set(_cpuinfo("flags").split())
    detected = next((isa for isa, needs in _ISA_FLAGS.items() if flags.issuperset(needs)), "portable")
    if not native:
        return Check("instruction set", "broken", f"{detected} detected, none chosen: the extension does not load")
    if not hasattr(torch.ops.recsparse, "cpu_isa"):
        return Check("instruction set", "broken", f"{detected} detected; the extension is out of date", "make build")
    return Check("instruction set", "ok", f"{detected} detected, {torch.ops.recsparse.cpu_isa()} chosen")


def _cuda() -> Check:
    found = missing("cuda", "cuda")
    if found is not None:
        return Check("backend cuda", "absent", *found)
    devices = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Check("backend cuda", "ok", devices)


def _triton() -> Check:
    found = missing("triton", "cuda")
    if found is not None:
        return Check("backend triton", "absent", *found)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return Check(
        "backend triton", "ok", "interpreter only (TRITON_INTERPRET=1): slow, for tests" if interpreted else "ready"
    )
