"""Plan and run the native build: which source gets which flags, one ninja file, two shared libraries.

`recsparse/_C.so`   torch ops from csrc/torch, csrc/cpu and, with a CUDA build of torch, csrc/cuda
`recsparse/_host`   pybind11 module from csrc/host, free of torch

The instruction set of a CPU file is chosen by its name (`*_avx512.cpp`, `*_avx2.cpp`); every other file is built for
the baseline processor, so that one library runs anywhere and picks a variant by cpuid. Ninja recompiles only what
changed, headers and flags included.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD_DIR = ROOT / "build" / "native"
EMULATOR = ROOT / "tests" / "cuda_emulator"

# -ffp-contract=off: a multiply and an add are fused only where the source says so, so that variants agree bit by bit.
# -fno-math-errno: a square root that sets errno cannot be a vector instruction.
BASE_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fopenmp", "-Wall", "-Wextra", "-fvisibility=hidden"]
BASE_FLAGS += ["-ffp-contract=off", "-fno-math-errno"]
_AVX2 = ["-mavx2", "-mfma", "-mbmi2", "-mpopcnt", "-mf16c"]
_AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vbmi2", "-mavx512vpopcntdq", "-mavx512vnni"]
# The intrinsics headers of g++ 12 leave operands undefined on purpose and its warning takes them for mistakes.
_AVX512 += [*_AVX2[1:], "-mprfchw", "-Wno-maybe-uninitialized", "-Wno-uninitialized"]
ISA_FLAGS = {"_avx2": _AVX2, "_avx512": _AVX512}

# -fmad=false: as -ffp-contract=off above.
NVCC_FLAGS = ["-std=c++17", "-O3", "-lineinfo", "-fmad=false", "-Xcompiler", "-fPIC,-Wall,-Wextra,-fvisibility=hidden"]
DEFAULT_CUDA_ARCHS = ["80", "90"]


class BuildError(Exception):
    """The native build cannot be done; the message is one line that says why and what to do."""


@dataclass
class Library:
    """One shared library: where it goes, its objects' sources, and the flags of this library alone."""

    output: Path
    sources: list[Path]
    flags: list[str]
    link: list[str]
    cuda_sources: list[Path] = field(default_factory=list)


def sources(pattern: str) -> list[Path]:
    """Files that match `pattern` below the repository root, in a fixed order."""
    return sorted(ROOT.glob(pattern))


def isa_flags(source: Path) -> list[str]:
    """Instruction-set flags of a source, by the suffix of its stem; [] means the baseline processor."""
    for suffix, flags in ISA_FLAGS.items():
        if source.stem.endswith(suffix):
            return flags
    return []


def max_jobs() -> int:
    """Parallel compiles: MAX_JOBS, else one a core but at most one for every 2 GB of RAM."""
    if "MAX_JOBS" in os.environ:
        return max(1, int(os.environ["MAX_JOBS"]))
    cpus = len(os.sched_getaffinity(0))
    ram_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return max(1, min(cpus, int(ram_gb // 2)))


def cuda_archs() -> list[str]:
    """Compute capabilities to build for, as nvcc writes them: RECSPARSE_CUDA_ARCH ("90", "8.0;9.0"), else 80 and 90."""
    chosen = os.environ.get("RECSPARSE_CUDA_ARCH", "")
    archs = [arch.replace(".", "") for arch in re.split(r"[;, ]+", chosen) if arch]
    for arch in archs:
        if not re.fullmatch(r"\d{2,3}[af]?", arch):
            raise BuildError(f"RECSPARSE_CUDA_ARCH: {arch!r} is no compute capability; write for example 90 or 8.0;9.0")
    return archs or DEFAULT_CUDA_ARCHS


def gencode_flags(archs: list[str]) -> list[str]:
    """Machine code for each architecture, and PTX of the last one for later GPUs."""
    flags = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    return [*flags, f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"]


def find_nvcc() -> Path | None:
    """nvcc from CUDA_HOME, then PATH, then /usr/local/cuda."""
    home = os.environ.get("CUDA_HOME")
    candidates = [Path(home) / "bin" / "nvcc"] if home else []
    on_path = shutil.which("nvcc")
    candidates += [Path(on_path)] if on_path else []
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((path for path in candidates if path.is_file()), None)


def nvcc_version(nvcc: Path) -> str:
    text = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"release (\d+\.\d+)", text)
    if not match:
        raise BuildError(f"{nvcc} --version names no release; is this nvcc?")
    return match.group(1)


def cudart_static(nvcc: Path) -> Path | None:
    """The static CUDA runtime that belongs to this nvcc, or None."""
    text = subprocess.run([str(nvcc), "--dryrun", "-c", "x.cu"], capture_output=True, text=True).stderr
    match = re.search(r"^#\$ TOP=(.*)$", text, re.MULTILINE)
    top = Path(match.group(1).strip()) if match else nvcc.resolve().parent.parent
    found = [path for folder in ("lib64", "targets/*/lib", "lib") for path in top.glob(f"{folder}/libcudart_static.a")]
    return found[0] if found else None


def why_no_cuda(torch_cuda: str | None, nvcc: Path | None) -> str | None:
    """Why the CUDA kernels cannot be linked, in one line, or None when they can."""
    if torch_cuda is None:
        return "torch is a CPU build"
    if nvcc is None:
        return "nvcc was not found (CUDA_HOME, PATH, /usr/local/cuda)"
    version = nvcc_version(nvcc)
    if version.split(".")[0] != torch_cuda.split(".")[0]:
        return f"nvcc is CUDA {version} but torch was built for CUDA {torch_cuda}"
    if cudart_static(nvcc) is None:
        return f"libcudart_static.a was not found beside {nvcc}"
    return None


def with_cuda(torch_cuda: str | None, nvcc: Path | None) -> bool:
    """Whether to link the CUDA kernels. RECSPARSE_CUDA=0 never, =1 or fail, unset: where it is possible."""
    wish = os.environ.get("RECSPARSE_CUDA", "")
    if wish not in ("", "0", "1"):
        raise BuildError(f"RECSPARSE_CUDA={wish!r}: expected 0, 1 or unset")
    if wish == "0":
        return False
    reason = why_no_cuda(torch_cuda, nvcc)
    if wish == "1" and reason is not None:
        raise BuildError(f"RECSPARSE_CUDA=1 cannot be met: {reason}")
    return reason is None


def openmp_link(torch_lib: Path) -> list[str]:
    """Link to the libgomp that torch loads: two OpenMP runtimes in one process would each start a pool of threads."""
    bundled = sorted(torch_lib.glob("libgomp*.so*"))
    if not bundled:
        return ["-fopenmp"]
    return [str(bundled[0]), "-Wl,-rpath,$ORIGIN/../torch/lib", f"-Wl,-rpath,{torch_lib}"]


def is_cuda_binding(source: Path) -> bool:
    """Whether a file of csrc/torch binds CUDA kernels."""
    return source.stem.endswith("_cuda")


def torch_flags() -> list[str]:
    import torch
    from torch.utils.cpp_extension import include_paths

    flags = [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    for path in include_paths():
        flags += ["-isystem", path]
    return flags


def torch_link() -> list[str]:
    import torch

    lib = Path(torch.__file__).parent / "lib"
    return [f"-L{lib}", "-ltorch", "-ltorch_cpu", "-lc10", *openmp_link(lib)]


def torch_library(output: Path) -> Library | None:
    """`recsparse/_C.so`, or None while there are no sources for it."""
    if not sources("csrc/torch/*.cpp"):
        return None
    import torch

    nvcc = find_nvcc()
    cuda = with_cuda(torch.version.cuda, nvcc)
    own = [path for path in sources("csrc/torch/*.cpp") if cuda or not is_cuda_binding(path)]
    flags, link = torch_flags(), torch_link()
    if cuda and nvcc is not None:
        # The runtime is our own copy: keep its symbols out of the way of the one torch loads.
        link += [str(cudart_static(nvcc)), "-Wl,--exclude-libs,libcudart_static.a", "-ldl", "-lrt", "-lpthread"]
    print(f"recsparse: torch {torch.__version__}, CUDA kernels {'linked' if cuda else 'not linked'}", flush=True)
    return Library(output, own + sources("csrc/cpu/*.cpp"), flags, link, sources("csrc/cuda/*.cu") if cuda else [])


def host_library(output: Path) -> Library | None:
    """`recsparse/_host`, or None while there are no sources for it."""
    own = sources("csrc/host/*.cpp")
    if not own:
        return None
    import pybind11
    import torch

    flags = []
    for path in (pybind11.get_include(), sysconfig.get_path("include")):
        flags += ["-isystem", path]
    return Library(output, own, flags, openmp_link(Path(torch.__file__).parent / "lib"))


def emulated_library(output: Path) -> Library:
    """The CUDA kernels and their bindings, compiled for the CPU by the emulator of the tests.

    Loaded after `recsparse/_C.so`, its kernels take the place of those of the CPU: the tests of the ops test them then.
    """
    # Where the device sorts with CUB, the emulator sorts with the standard library.
    kernels = [path for path in sources("csrc/cuda/*.cu") if path.name != "sort.cu"]
    bindings = sources("csrc/torch/*_cuda.cpp")
    flags = ["-x", "c++", "-O2", "-Wno-unknown-pragmas", "-DRECSPARSE_CUDA_EMULATOR", "-I", str(EMULATOR)]
    own = [*kernels, *bindings, *sorted(EMULATOR.glob("*.cpp"))]
    return Library(output, own, [*flags, *torch_flags()], torch_link())


def _escape(words: list[str]) -> str:
    return " ".join(word.replace("$", "$$").replace(" ", "\\ ") for word in words)


def _path(path: Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def _object(source: Path, folder: Path) -> Path:
    return folder / source.relative_to(ROOT).with_suffix(source.suffix + ".o")


def ninja_text(libraries: list[Library], folder: Path) -> str:
    """The ninja file that builds `libraries`, with their objects in `folder`."""
    include = ["-I", str(ROOT / "csrc")]
    cxx = os.environ.get("CXX", "g++")
    lines = [
        # -MD, not -MMD: a new torch must recompile what includes its headers.
        f"rule cxx\n  command = {cxx} -MD -MF $out.d $flags -c $in -o $out\n  depfile = $out.d\n  deps = gcc\n"
        "  description = c++ $in",
        # Quotes around the rpath's $ORIGIN are the shell's; the linker writes it down literally.
        f"rule link\n  command = {cxx} -shared -o $out $in $link\n  description = link $out",
    ]
    if any(library.cuda_sources for library in libraries):
        lines.append(
            f"rule nvcc\n  command = {find_nvcc()} -MD -MF $out.d $flags -c $in -o $out\n  depfile = $out.d\n"
            "  deps = gcc\n  description = nvcc $in"
        )
    for library in libraries:
        objects = []
        for source in library.sources:
            flags = [*BASE_FLAGS, *isa_flags(source), *include, *library.flags]
            lines.append(f"build {_path(_object(source, folder))}: cxx {_path(source)}\n  flags = {_escape(flags)}")
            objects.append(_object(source, folder))
        for source in library.cuda_sources:
            flags = [*NVCC_FLAGS, *gencode_flags(cuda_archs()), *include]
            lines.append(f"build {_path(_object(source, folder))}: nvcc {_path(source)}\n  flags = {_escape(flags)}")
            objects.append(_object(source, folder))
        link = _escape(library.link).replace("$$ORIGIN", "'$$ORIGIN'")
        lines.append(f"build {_path(library.output)}: link {' '.join(map(_path, objects))}\n  link = {link}")
    return "\n".join(lines) + "\n"


def _ninja() -> str:
    try:
        import ninja

        return str(Path(ninja.BIN_DIR) / "ninja")
    except ImportError:
        found = shutil.which("ninja")
        if found is None:
            raise BuildError("ninja is missing: run `pip install ninja`") from None
        return found


def build(libraries: list[Library], folder: Path | None = None) -> None:
    """Compile and link `libraries` with their objects in `folder`, by default BUILD_DIR.

    Raises:
        BuildError: the compiler's own messages are on the terminal by then.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler.split()[0]) is None:
        raise BuildError(f"the C++ compiler {compiler!r} was not found: install g++ 9 or later, or set CXX")
    folder = folder or BUILD_DIR
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "build.ninja"
    text = ninja_text(libraries, folder)
    if not script.is_file() or script.read_text() != text:
        script.write_text(text)
    command = [_ninja(), "-C", str(folder), "-f", script.name, "-j", str(max_jobs())]
    sys.stdout.flush()
    if subprocess.run(command).returncode != 0:
        raise BuildError("the native build failed; the first compiler message above says where")
