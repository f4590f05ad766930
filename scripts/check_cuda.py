"""Compile every csrc/cuda/*.cu for sm_80 and sm_90 and fail when a kernel spills registers to memory.

python scripts/check_cuda.py [SOURCE ...]      needs nvcc, but neither a GPU nor a CUDA build of torch
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from native import DEFAULT_CUDA_ARCHS, NVCC_FLAGS, ROOT, find_nvcc, sources


def spills(ptxas_report: str) -> list[str]:
    """Mangled names of the kernels that spill, from the report of `ptxas -v`."""
    found = []
    kernel = "?"
    for line in ptxas_report.splitlines():
        name = re.search(r"(?:Compiling entry function|Function properties for) '?(\w+)'?", line)
        if name:
            kernel = name.group(1)
        spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line)
        if spilled and spilled.groups() != ("0", "0"):
            found.append(kernel)
    return found


def check(nvcc: Path, source: Path, arch: str) -> list[str]:
    """What is wrong with `source` on `arch`, one line each; [] if nothing is."""
    target = f"-gencode=arch=compute_{arch},code=sm_{arch}"
    with tempfile.TemporaryDirectory() as folder:
        command = [str(nvcc), *NVCC_FLAGS, target, "-Xptxas", "-v", "-I", str(ROOT / "csrc"), "-c", str(source)]
        done = subprocess.run([*command, "-o", f"{folder}/out.o"], capture_output=True, text=True)
    if done.returncode != 0:
        return [f"{source.name} does not compile for sm_{arch}:\n{done.stderr}"]
    return [f"{source.name}: kernel {kernel} spills registers on sm_{arch}" for kernel in spills(done.stderr)]


def main(arguments: list[str]) -> int:
    nvcc = find_nvcc()
    if nvcc is None:
        print("check_cuda: nvcc was not found (CUDA_HOME, PATH, /usr/local/cuda)", file=sys.stderr)
        return 1
    files = [Path(argument) for argument in arguments] or sources("csrc/cuda/*.cu")
    found = [line for source in files for arch in DEFAULT_CUDA_ARCHS for line in check(nvcc, source, arch)]
    for line in found:
        print(f"check_cuda: {line}", file=sys.stderr)
    if not found:
        print(f"check_cuda: {len(files)} files compile for sm_{', sm_'.join(DEFAULT_CUDA_ARCHS)} without spills")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
