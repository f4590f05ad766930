"""Compile every csrc/cuda/*.cu for sm_80 and sm_90; fail when a kernel spills registers, uses local memory, or when the
table of registers in docs/cuda.md is out of date.

python scripts/check_cuda.py [--write] [SOURCE ...]      needs nvcc, but neither a GPU nor a CUDA build of torch

`--write` brings the table up to date. What was compiled before is not compiled again (build/cuda_check).
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from native import DEFAULT_CUDA_ARCHS, NVCC_FLAGS, ROOT, find_nvcc, nvcc_version, sources

CACHE = ROOT / "build" / "cuda_check"
PAGE = ROOT / "docs" / "cuda.md"
BEGIN, END = "<!-- registers: scripts/check_cuda.py --write -->", "<!-- end of registers -->"


@dataclass
class Kernel:
    """What ptxas says of one kernel; bytes."""

    name: str
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spills: int = 0


def demangled(names: list[str]) -> list[str]:
    """The functions' own names, without namespaces, templates and arguments."""
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [
        re.sub(r".*?(\w+)(<.*|\(.*)?$", r"\1", line.replace("(anonymous namespace)::", "")) for line in text.split("\n")
    ]


def kernels(ptxas_report: str) -> list[Kernel]:
    """The kernels in the report of `ptxas -v`, by their mangled names; those of CUB are not ours to judge."""
    found: list[Kernel] = []
    for line in ptxas_report.splitlines():
        name = re.search(r"Compiling entry function '(\w+)'", line)
        if name:
            found.append(Kernel(name.group(1)))
        if not found:
            continue
        own = found[-1]
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        if frame:
            own.stack, own.spills = int(frame.group(1)), int(frame.group(2)) + int(frame.group(3))
        used = re.search(r"Used (\d+) registers", line)
        if used:
            own.registers = int(used.group(1))
            shared = re.search(r"(\d+) bytes smem", line)
            own.shared = int(shared.group(1)) if shared else 0
    return [kernel for kernel in found if "3cub" not in kernel.name]


def with_headers(source: Path) -> list[Path]:
    """A source and the headers of ours that it includes, directly or not, in the order of their names."""
    found, left = {source}, [source]
    while left:
        file = left.pop()
        names = re.findall(r'^#include "(.+)"', file.read_text(), re.MULTILINE)
        new = {folder / name for name in names for folder in (file.parent, ROOT / "csrc")} - found
        left += [header for header in new if header.is_file()]
        found.update(left)
    return sorted(found)


def compile_for(nvcc: Path, source: Path, arch: str) -> list[Kernel] | str:
    """The kernels of a source, or the compiler's message."""
    flags = [*NVCC_FLAGS, f"-gencode=arch=compute_{arch},code=sm_{arch}", "-Xptxas", "-v"]
    key = hashlib.sha256(nvcc_version(nvcc).encode() + " ".join(flags).encode())
    for file in with_headers(source):
        key.update(file.read_bytes())
    cached = CACHE / f"{source.stem}-{arch}.json"
    if cached.is_file():
        saved = json.loads(cached.read_text())
        if saved["key"] == key.hexdigest():
            return [Kernel(**kernel) for kernel in saved["kernels"]]
    with tempfile.TemporaryDirectory() as folder:
        command = [str(nvcc), *flags, "-I", str(ROOT / "csrc"), "-c", str(source), "-o", f"{folder}/out.o"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return done.stderr
    found = kernels(done.stderr)
    CACHE.mkdir(parents=True, exist_ok=True)
    cached.write_text(json.dumps({"key": key.hexdigest(), "kernels": [asdict(kernel) for kernel in found]}))
    return found


def check(nvcc: Path, source: Path, arch: str) -> list[str]:
    """What is wrong with `source` on `arch`, one line each; [] if nothing is."""
    found = compile_for(nvcc, source, arch)
    if isinstance(found, str):
        return [f"{source.name} does not compile for sm_{arch}:\n{found[:3000]}"]
    wrong = []
    for kernel in found:
        if kernel.spills:
            wrong.append(f"{source.name}: kernel {kernel.name} spills registers on sm_{arch}")
        elif kernel.stack:
            wrong.append(f"{source.name}: kernel {kernel.name} uses {kernel.stack} bytes of local memory on sm_{arch}")
    return wrong


def table(nvcc: Path) -> str:
    """Markdown: for each kernel the variants, the least and most registers that one takes, and shared memory."""
    archs = " | ".join(f"registers, sm_{arch}" for arch in DEFAULT_CUDA_ARCHS)
    lines = [f"nvcc {nvcc_version(nvcc)}", "", f"| source | kernel | variants | {archs} | shared bytes | spills |"]
    lines.append("|---" * (5 + len(DEFAULT_CUDA_ARCHS)) + "|")
    for source in sources("csrc/cuda/*.cu"):
        by_arch = [_groups(nvcc, source, arch) for arch in DEFAULT_CUDA_ARCHS]
        for name in sorted(by_arch[0]):
            groups = [groups[name] for groups in by_arch]
            registers = []
            for group in groups:
                least, most = (choose(kernel.registers for kernel in group) for choose in (min, max))
                registers.append(str(most) if least == most else f"{least} to {most}")
            every = [kernel for group in groups for kernel in group]
            shared, spills = max(kernel.shared for kernel in every), max(kernel.spills for kernel in every)
            cells = [f"`{source.name}`", f"`{name}`", str(len(groups[0])), *registers, str(shared), str(spills)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _groups(nvcc: Path, source: Path, arch: str) -> dict[str, list[Kernel]]:
    """The kernels of a source by their own names."""
    found = compile_for(nvcc, source, arch)
    if isinstance(found, str):
        raise SystemExit(found)
    groups: dict[str, list[Kernel]] = {}
    for kernel, name in zip(found, demangled([kernel.name for kernel in found]), strict=False):
        groups.setdefault(name, []).append(kernel)
    return groups


def stale(nvcc: Path) -> str:
    """Empty, or why the table in the documentation does not hold. That of another nvcc is not looked at."""
    text = PAGE.read_text()
    written = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    if not written.startswith(f"nvcc {nvcc_version(nvcc)}\n") or written == table(nvcc):
        return ""
    return f"{PAGE.relative_to(ROOT)}: the table of registers is out of date: run scripts/check_cuda.py --write"


def main(arguments: list[str]) -> int:
    nvcc = find_nvcc()
    if nvcc is None:
        print("check_cuda: nvcc was not found (CUDA_HOME, PATH, /usr/local/cuda)", file=sys.stderr)
        return 1
    write = "--write" in arguments
    files = [Path(argument) for argument in arguments if argument != "--write"]
    found = [
        line
        for source in files or sources("csrc/cuda/*.cu")
        for arch in DEFAULT_CUDA_ARCHS
        for line in check(nvcc, source, arch)
    ]
    if not files and not found:
        if write:
            text = PAGE.read_text()
            PAGE.write_text(f"{text[: text.index(BEGIN) + len(BEGIN)]}\n{table(nvcc)}\n{text[text.index(END) :]}")
        found += [line for line in [stale(nvcc)] if line]
    for line in found:
        print(f"check_cuda: {line}", file=sys.stderr)
    if not found:
        print(f"check_cuda: all compiles for sm_{', sm_'.join(DEFAULT_CUDA_ARCHS)} without spills and local memory")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
