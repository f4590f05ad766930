"""Build the CPU kernels under a sanitizer and run tests/cpp/kernels.cpp on every instruction set that this CPU has.

    python scripts/sanitize.py address     AddressSanitizer and UndefinedBehaviorSanitizer
    python scripts/sanitize.py thread      ThreadSanitizer; threads are std::thread there, see csrc/cpu/parallel.h

No torch is linked: its allocator and libgomp would hide what is looked for. Objects are kept in build/sanitize.
"""

from __future__ import annotations

import os
import subprocess
import sys

from native import ROOT, BuildError, _ninja, isa_flags, max_jobs, sources

# UBSan at -O1 takes six times as long to compile as at -O0: it keeps thousands of branches a kernel from being folded.
SANITIZERS = {
    "address": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-fsanitize=thread"],
}
FLAGS = ["-std=c++17", "-g1", "-fno-omit-frame-pointer", "-ffp-contract=off", "-DRECSPARSE_STD_THREADS"]
LEVELS = ("avx512", "avx2", "portable")


def build(sanitizer: str) -> str:
    """Compiles and links the driver; returns its path."""
    folder = ROOT / "build" / "sanitize" / sanitizer
    folder.mkdir(parents=True, exist_ok=True)
    cxx = os.environ.get("CXX", "g++")
    lines = [
        f"rule cxx\n  command = {cxx} -MD -MF $out.d $flags -c $in -o $out\n  depfile = $out.d\n  deps = gcc",
        f"rule link\n  command = {cxx} -o $out $in {' '.join(SANITIZERS[sanitizer])} -pthread",
    ]
    objects = []
    for source in [*sources("csrc/cpu/*.cpp"), ROOT / "tests/cpp/kernels.cpp"]:
        flags = [*FLAGS, *SANITIZERS[sanitizer], *isa_flags(source), f"-I{ROOT / 'csrc'}"]
        objects.append(f"{source.stem}.o")
        lines.append(f"build {objects[-1]}: cxx {source}\n  flags = {' '.join(flags)}")
    lines.append(f"build kernels: link {' '.join(objects)}")
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")
    if subprocess.run([_ninja(), "-C", str(folder), "-j", str(max_jobs()), "kernels"]).returncode != 0:
        raise BuildError(f"the {sanitizer} build failed; the first compiler message above says where")
    return str(folder / "kernels")


def main(arguments: list[str]) -> int:
    failed = 0
    for sanitizer in arguments or list(SANITIZERS):
        program = build(sanitizer)
        for level in LEVELS:
            environment = {**os.environ, "RECSPARSE_CPU_ISA": level, "TSAN_OPTIONS": "halt_on_error=1"}
            done = subprocess.run([program], env=environment, capture_output=True, text=True)
            if "this CPU lacks" in done.stderr:
                print(f"{sanitizer}: {level}: this CPU lacks it")
                continue
            print(f"{sanitizer}: {done.stdout.strip()}")
            if done.returncode != 0:
                print(done.stderr[-4000:])
                failed = 1
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BuildError as error:
        sys.exit(f"sanitize: {error}")
