"""What is installed, which flags each native source gets, and the checks that guard them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import check_cuda
import check_isa_symbols
import native
import pytest

import recsparse

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree; the objects of the last build are reused."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(folder)]
    command += ["build", "--build-base", str(folder / "build")]
    command += ["bdist_wheel", "--bdist-dir", str(folder / "bdist"), "--dist-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_wheel_installs_one_top_level_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"recsparse", f"recsparse-{recsparse.__version__}.dist-info"}
    for member in ("_C.so", "_native.py", "bench/gpu_check.py", "triton_kernels/__init__.py"):
        assert f"recsparse/{member}" in names
    assert any(re.fullmatch(r"recsparse/_host\..*so", name) for name in names)
    for package in ("bench", "triton_kernels"):
        for source in (ROOT / package).glob("**/*.py"):
            if all((parent / "__init__.py").is_file() for parent in source.relative_to(ROOT).parents if parent.name):
                assert f"recsparse/{source.relative_to(ROOT)}" in names


def test_wheel_works_when_installed(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import recsparse, recsparse._native, recsparse.bench, recsparse.triton_kernels, recsparse._host\n"
        "recsparse._native.load()\n"
        "print(recsparse.__file__, recsparse.bench.__file__, recsparse._native.LIBRARY, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(tmp_path)) for line in done.stdout.splitlines())


def test_wheel_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(f"recsparse-{recsparse.__version__}.dist-info/METADATA").decode()
    needs = re.findall(r"^Requires-Dist: ([\w-]+)(?![^\n]*extra)", metadata, re.MULTILINE)
    assert sorted(needs) == ["docstring-parser", "jsonargparse", "numpy", "pyyaml", "rich", "safetensors", "torch"]
    assert "Requires-Python: >=3.10" in metadata
    scripts = archive.read(f"recsparse-{recsparse.__version__}.dist-info/entry_points.txt").decode()
    assert "recsparse = recsparse.cli:main" in scripts


def test_build_does_not_fetch_torch() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    requires = re.search(r"^requires = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert requires is not None
    assert "torch" not in requires.group(1)


@pytest.mark.parametrize("first", ["torch", "recsparse._host"])
def test_one_openmp_runtime(first: str) -> None:
    program = (
        f"import {first}, torch, recsparse._host, recsparse._native\n"
        "recsparse._native.load()\n"
        "print(*{l.split()[-1] for l in open('/proc/self/maps') if 'libgomp' in l or 'libomp' in l or 'libiomp' in l})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1, done.stdout


def test_isa_flags_follow_the_file_name() -> None:
    avx512 = native.isa_flags(Path("csrc/cpu/lookup_avx512.cpp"))
    assert {"-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vbmi2", "-mfma", "-mf16c"} <= set(avx512)
    avx2 = native.isa_flags(Path("csrc/cpu/lookup_avx2.cpp"))
    assert {"-mavx2", "-mfma", "-mbmi2", "-mf16c"} <= set(avx2)
    assert not any("avx512" in flag for flag in avx2)
    for name in ("lookup_portable.cpp", "lookup.cpp", "avx512.h", "avx512_dispatch.cpp"):
        assert native.isa_flags(Path(name)) == []


def test_ninja_file_gives_each_source_its_flags(tmp_path: Path) -> None:
    cpu = [ROOT / "csrc/cpu" / name for name in ("a.cpp", "a_avx2.cpp", "a_avx512.cpp", "a_portable.cpp")]
    text = native.ninja_text([native.Library(tmp_path / "x.so", cpu, ["-DOWN"], ["-lm"])], tmp_path)
    flags = dict(re.findall(r"cxx \S+/(\w+)\.cpp\n  flags = (.*)", text))
    assert list(flags) == ["a", "a_avx2", "a_avx512", "a_portable"]
    for line in flags.values():
        assert {"-ffp-contract=off", "-std=c++17", "-fopenmp", "-DOWN"} <= set(line.split())
        assert not {"-march=native", "-ffast-math", "-Ofast"} & set(line.split())
    assert [name for name, line in flags.items() if "-mavx512f" in line] == ["a_avx512"]
    assert [name for name, line in flags.items() if "-mavx2" in line] == ["a_avx2"]


def test_objects_keep_to_their_instruction_set(tmp_path: Path) -> None:
    objects = [obj for folder in ("cpu", "host") for obj in sorted((native.BUILD_DIR / "csrc" / folder).glob("*.o"))]
    assert {"baseline", "_avx2", "_avx512"} == {check_isa_symbols.instruction_set(obj) for obj in objects}
    assert check_isa_symbols.foreign_registers(objects) == []
    wide = _compile(tmp_path / "op_avx512.cpp", "#include <immintrin.h>\n__m512 twice(__m512 x) { return x + x; }\n")
    for name, level in (("op_avx2.cpp.o", "avx2"), ("op.cpp.o", "baseline")):
        (message,) = check_isa_symbols.foreign_registers([Path(shutil.copy(wide, tmp_path / name))])
        assert message.startswith(f"{name} is built for {level} and holds ")


def _compile(source: Path, text: str) -> Path:
    source.write_text(text)
    obj = source.with_name(source.name + ".o")
    subprocess.run(["g++", "-O2", *native.isa_flags(source), "-c", str(source), "-o", str(obj)], check=True)
    return obj


def test_shared_weak_symbol_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = "inline __attribute__((noinline)) int shared(int x) {{ return x * 3; }}\n"
    text = shared + "int {name}(int x) {{ return shared(x); }}"
    wide = _compile(tmp_path / "op_avx512.cpp", text.format(name="wide"))
    base = _compile(tmp_path / "op.cpp", text.format(name="base"))
    other = _compile(tmp_path / "other.cpp", text.format(name="other"))
    assert check_isa_symbols.main([str(wide), str(base)]) == 1
    message = capsys.readouterr().err
    assert "shared(int): defined by op.cpp.o and op_avx512.cpp.o" in message
    assert check_isa_symbols.main([str(base), str(other)]) == 0  # the same instruction set may share
    own = _compile(tmp_path / "own_avx512.cpp", "namespace avx512 {" + text.format(name="wide") + "}")
    assert check_isa_symbols.violations([own, base]) == []


def test_built_objects_share_no_weak_symbol() -> None:
    objects = sorted((native.BUILD_DIR / "csrc").glob("**/*.cpp.o"))
    assert objects
    assert check_isa_symbols.violations(objects) == []


def _nvcc() -> Path:
    nvcc = native.find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc was not found: CUDA sources are not compiled")
    return nvcc


@pytest.mark.parametrize("arch", native.DEFAULT_CUDA_ARCHS)
@pytest.mark.parametrize("source", native.sources("csrc/cuda/*.cu"), ids=lambda path: path.name)
def test_cuda_source_compiles_without_spills(source: Path, arch: str) -> None:
    assert check_cuda.check(_nvcc(), source, arch) == []


def test_the_table_of_registers_is_up_to_date() -> None:
    assert check_cuda.stale(_nvcc()) == ""


def test_spill_is_found(tmp_path: Path) -> None:
    source = tmp_path / "spill.cu"
    source.write_text(
        "__global__ void __launch_bounds__(1024) spilling(float* x, int n) {\n"
        "  float a[128];\n#pragma unroll\n  for (int i = 0; i < 128; ++i) a[i] = x[i * 31];\n"
        "  for (int j = 0; j < n; ++j) {\n#pragma unroll\n    for (int i = 0; i < 128; ++i) a[i] += a[(i * 7) % 128];\n"
        "  }\n#pragma unroll\n  for (int i = 0; i < 128; ++i) x[i] = a[i];\n}\n"
    )
    found = check_cuda.check(_nvcc(), source, "90")
    assert len(found) == 1
    assert "spilling" in found[0]


def _fake_nvcc(folder: Path, release: str) -> Path:
    nvcc = folder / "nvcc"
    nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {release}, V{release}.1"\n')
    nvcc.chmod(0o755)
    return nvcc


def test_cuda_is_linked_only_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc = _fake_nvcc(tmp_path, "12.4")
    (tmp_path.parent / "lib64").mkdir(exist_ok=True)
    runtime = tmp_path.parent / "lib64" / "libcudart_static.a"
    runtime.touch()
    monkeypatch.delenv("RECSPARSE_CUDA", raising=False)
    assert native.with_cuda("12.8", nvcc)
    assert not native.with_cuda("13.0", nvcc)
    assert not native.with_cuda(None, nvcc)
    assert not native.with_cuda("12.8", None)
    monkeypatch.setenv("RECSPARSE_CUDA", "0")
    assert not native.with_cuda("12.8", nvcc)
    monkeypatch.setenv("RECSPARSE_CUDA", "1")
    assert native.with_cuda("12.8", nvcc)
    for torch_cuda, compiler, reason in [
        ("13.0", nvcc, "nvcc is CUDA 12.4 but torch was built for CUDA 13.0"),
        (None, nvcc, "torch is a CPU build"),
        ("12.8", None, "nvcc was not found"),
    ]:
        with pytest.raises(native.BuildError, match=f"RECSPARSE_CUDA=1 cannot be met: {reason}"):
            native.with_cuda(torch_cuda, compiler)
    runtime.unlink()
    with pytest.raises(native.BuildError, match=r"libcudart_static\.a was not found"):
        native.with_cuda("12.8", nvcc)
    monkeypatch.setenv("RECSPARSE_CUDA", "yes")
    with pytest.raises(native.BuildError, match="expected 0, 1 or unset"):
        native.with_cuda("12.8", nvcc)


def test_cuda_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSPARSE_CUDA_ARCH", raising=False)
    assert native.gencode_flags(native.cuda_archs()) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]
    monkeypatch.setenv("RECSPARSE_CUDA_ARCH", "8.9;12.0")
    assert native.cuda_archs() == ["89", "120"]
    monkeypatch.setenv("RECSPARSE_CUDA_ARCH", "hopper")
    with pytest.raises(native.BuildError, match="no compute capability"):
        native.cuda_archs()


def test_only_what_changed_is_recompiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "ROOT", tmp_path)
    monkeypatch.setattr(native, "BUILD_DIR", tmp_path / "build dir")
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc/h.h").write_text("#define VALUE 1\n")
    uses, plain = tmp_path / "csrc/uses.cpp", tmp_path / "csrc/plain.cpp"
    uses.write_text('#include "h.h"\nextern "C" int uses() { return VALUE; }\n')
    plain.write_text('extern "C" int plain() { return 0; }\n')
    library = native.Library(native.BUILD_DIR / "x.so", [uses, plain], [], [])
    objects = [native.BUILD_DIR / "csrc" / f"{name}.cpp.o" for name in ("uses", "plain")]

    def build() -> list[int]:
        native.build([library])
        return [obj.stat().st_mtime_ns for obj in objects]

    first = build()
    assert build() == first
    (tmp_path / "csrc/h.h").write_text("#define VALUE 2\n")
    second = build()
    assert second[0] > first[0]
    assert second[1] == first[1]
    library.flags.append("-DNEW")
    third = build()
    assert third[0] > second[0]
    assert third[1] > second[1]
    plain.write_text("this is no C++\n")
    with pytest.raises(native.BuildError, match="the native build failed"):
        native.build([library])


def test_build_without_torch_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not here')\n")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path / "lib")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("recsparse: torch is missing; install torch>=2.11 first")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("interpreter", "message"),
    [
        (None, "was not found: install Python 3.10 or later"),
        ('case "$*" in *version_info*) exit 1;; esac; echo Python 3.8.1', "Python 3.10 or later is needed"),
        ('case "$*" in *ensurepip*) exit 1;; esac', "cannot make virtual environments"),
        ('case "$*" in *Python.h*) exit 1;; esac', "headers of .* are missing"),
    ],
)
def test_set_up_says_what_is_missing(tmp_path: Path, interpreter: str | None, message: str) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/bootstrap.sh", tmp_path / "scripts")
    python = tmp_path / "python"
    if interpreter is not None:
        python.write_text(f"#!/bin/sh\n{interpreter}\n")
        python.chmod(0o755)
    done = subprocess.run(
        [str(tmp_path / "scripts/bootstrap.sh")],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / ".venv").exists()
